"""A store that fails, or has a bug: who waits on, who goes on without it, and that nobody is forgotten."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from extproc.desk import AdmissionDesk
from extproc.events import LeaseGranted, StoreFailed
from headgate.store import Lease, LeaseRequest, TakeOutcome
from headgate.store.memory import MemoryStore
from tests.extproc.desks import Place, asked, asking, joining, settle


class FailingStore(MemoryStore):
    """Gives no answer while told so."""

    is_down = True

    def acquire(self, request: LeaseRequest, answer: TakeOutcome) -> None:
        if self.is_down:
            answer(None)
        else:
            super().acquire(request, answer)


async def test_a_store_without_an_answer_is_an_answer() -> None:
    desk = AdmissionDesk(FailingStore(lambda: 0.0))

    assert await asked(desk, asking()) == StoreFailed()


async def test_waiters_outlast_a_store_that_fails_for_a_while() -> None:
    store = FailingStore(lambda: 0.0)
    store.is_down = False
    desk = AdmissionDesk(store)
    held = [await asked(desk, asking(cluster_limit=2)) for _ in range(2)]
    waiting = Place(desk, joining(asking(cluster_limit=2)))
    first, second = (answer.lease for answer in held if isinstance(answer, LeaseGranted))

    store.is_down = True
    desk.release(first)
    await settle()
    assert not waiting.answered.done()

    store.is_down = False
    desk.release(second)
    await settle(waiting.answered.done)
    assert isinstance(waiting.lease, Lease)


async def test_waiters_who_need_no_store_go_on_without_it() -> None:
    store = FailingStore(lambda: 0.0)
    store.is_down = False
    desk = AdmissionDesk(store)
    held = await asked(desk, asking())
    assert isinstance(held, LeaseGranted)
    waiting = [Place(desk, replace(joining(asking(tenant)), outlasts_store=False)) for tenant in ("acme", "globex")]
    waiting[0].leave()
    waiting.append(Place(desk, replace(joining(asking()), outlasts_store=False)))

    store.is_down = True
    desk.release(held.lease)
    await settle(waiting[2].answered.done)

    assert waiting[0].has_left
    assert all(isinstance(place.answered.result(), StoreFailed) for place in waiting[1:])
    assert desk.queue.depth("best") == 0


async def test_a_store_with_a_bug_does_not_stop_those_who_wait_for_ever(caplog: pytest.LogCaptureFixture) -> None:
    class Broken(MemoryStore):
        is_broken = False

        def acquire(self, request: LeaseRequest, answer: TakeOutcome) -> None:
            if self.is_broken:
                raise ZeroDivisionError
            super().acquire(request, answer)

    store = Broken(lambda: 0.0)
    desk = AdmissionDesk(store)
    held = [await asked(desk, asking(cluster_limit=2)) for _ in range(2)]
    first, second = (answer.lease for answer in held if isinstance(answer, LeaseGranted))
    waiting = Place(desk, joining(asking(cluster_limit=2)))
    await settle()

    store.is_broken = True
    desk.release(first)
    await settle()
    store.is_broken = False
    desk.release(second)
    await settle(waiting.answered.done)

    assert isinstance(waiting.lease, Lease)
    assert [record.name for record in caplog.records] == ["asyncio"]
