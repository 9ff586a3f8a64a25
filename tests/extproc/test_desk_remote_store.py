"""A store across a network: what happens while its answer is on the way."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from msgspec.structs import replace

from extproc.desk import AdmissionDesk, Answer
from extproc.events import AcquireLease, LeaseGranted, LeaseRefused, StoreFailed
from headgate.store import Lease, LeaseRequest, Scope, TakeOutcome
from headgate.store.memory import MemoryStore
from tests.extproc.desks import TURNS, Place, asking, joining, settle


class RemoteStore(MemoryStore):
    """Decides at once and answers when the test says so, as a store across a network may."""

    def __init__(self) -> None:
        super().__init__(lambda: 0.0)
        self.is_away = False
        self.on_the_way: list[Callable[[], None]] = []

    def acquire(self, request: LeaseRequest, answer: TakeOutcome) -> None:
        if self.is_away:
            self.on_the_way.append(lambda: answer(None))
        else:
            super().acquire(request, lambda outcome: self.on_the_way.append(lambda: answer(outcome)))

    def deliver(self) -> None:
        """Everything that is on the way arrives."""
        arriving, self.on_the_way = self.on_the_way, []
        for arrive in arriving:
            arrive()

    def in_use(self) -> int:
        return self.in_flight(Scope.CLUSTER, "best")


class RemoteDesk:
    """A desk over a remote store whose one slot is held."""

    def __init__(self) -> None:
        self.store = RemoteStore()
        self.desk = AdmissionDesk(self.store)
        answers: list[Answer] = []
        self.desk.acquire(AcquireLease(asking(), 0), answers.append)
        assert answers == []
        self.store.deliver()
        [granted] = answers
        assert isinstance(granted, LeaseGranted)
        self.held = granted.lease

    async def arrived(self) -> None:
        """All answers, and the questions they lead to, have come and gone."""
        for _ in range(TURNS):
            self.store.deliver()
            await asyncio.sleep(0)


@pytest.fixture
async def remote() -> RemoteDesk:
    return RemoteDesk()


async def test_a_slot_granted_to_one_who_left_while_the_store_answered_goes_to_the_next(remote: RemoteDesk) -> None:
    leaving, staying = (Place(remote.desk, joining(asking())) for _ in range(2))
    await remote.arrived()
    remote.desk.release(remote.held)
    await settle(lambda: remote.store.in_use() == 1)

    leaving.leave()
    assert not staying.answered.done()
    await remote.arrived()

    assert leaving.has_left
    remote.desk.release(staying.lease)
    assert remote.store.in_use() == 0


async def test_a_no_from_before_a_release_says_nothing_about_now(remote: RemoteDesk) -> None:
    waiting = Place(remote.desk, joining(asking()))
    await settle(lambda: bool(remote.store.on_the_way))

    remote.desk.release(remote.held)
    remote.store.deliver()
    await remote.arrived()

    assert isinstance(waiting.lease, Lease)


async def test_a_store_that_was_away_before_a_release_is_asked_again_after_it(remote: RemoteDesk) -> None:
    remote.store.is_away = True
    waiting = Place(remote.desk, joining(asking()))
    await settle(lambda: bool(remote.store.on_the_way))

    remote.store.is_away = False
    remote.desk.release(remote.held)
    await remote.arrived()

    assert isinstance(waiting.lease, Lease)


async def test_one_question_is_open_at_a_time_for_those_who_wait(remote: RemoteDesk) -> None:
    for cluster in ("best", "fast", "tiny"):
        Place(remote.desk, joining(asking(cluster=cluster)))
    await settle()

    assert len(remote.store.on_the_way) == 1


async def test_one_who_left_a_store_that_fails_leaves_nobody_behind_it() -> None:
    store = RemoteStore()
    desk = AdmissionDesk(store)
    places = [Place(desk, replace(joining(asking(tenant)), outlasts_store=False)) for tenant in ("acme", "globex")]
    store.is_away = True
    await settle(lambda: bool(store.on_the_way))

    places[0].leave()
    while store.on_the_way:
        store.deliver()
        await settle()

    assert isinstance(places[1].answered.result(), StoreFailed)


async def test_who_gives_up_while_the_store_answers_gets_one_answer_and_no_slot(remote: RemoteDesk) -> None:
    remote.desk.release(remote.held)
    waiting = Place(remote.desk, joining(asking(), max_wait_seconds=0.01))

    answer = await waiting.answered
    await remote.arrived()

    assert isinstance(answer, LeaseRefused)
    assert answer.queue_reason == "queue_timeout"
    assert remote.store.in_use() == 0
