"""What a cluster can take changes under those who wait: prompts before them, a limit that moves."""

from __future__ import annotations

import asyncio
from typing import Any

from msgspec.structs import replace

from extproc.desk import AdmissionDesk
from extproc.events import LeaseGranted, LeaseRefused
from headgate.store import Scope
from headgate.store.memory import MemoryStore
from tests.extproc.desks import Desk, Place, asked, asking, joining, settle

# prompts before it

BUSY: dict[str, Any] = {"cluster_limit": 10, "prompt_tokens": 10_000, "prompt_tokens_per_second": 1000.0}
HELD_BACK: dict[str, Any] = BUSY | {"tier": "batch", "max_backlog_seconds": 0.02}


async def test_a_lesser_tier_waits_behind_the_prompts_before_it_and_the_best_does_not(desk: Desk) -> None:
    await desk.hold(asking(**BUSY))

    answer = await asked(desk.desk, asking(**HELD_BACK))

    assert isinstance(answer, LeaseRefused)
    assert answer.scope is Scope.CLUSTER
    assert 0.0 < answer.retry_after_seconds <= 9.98
    assert isinstance(await asked(desk.desk, asking(**BUSY)), LeaseGranted)


async def test_whoever_was_held_back_is_served_when_the_prompts_are_computed_without_any_release(desk: Desk) -> None:
    short = {"prompt_tokens": 50}
    await desk.hold(asking(**BUSY | short))

    place = desk.wait("batch", joining(asking(**HELD_BACK | short), priority=3))

    assert isinstance(await asyncio.wait_for(place.answered, 10.0), LeaseGranted)


async def test_one_held_back_keeps_its_claim_before_lesser_tiers(desk: Desk) -> None:
    await desk.hold(asking(**BUSY))
    place = desk.wait("batch", joining(asking(**HELD_BACK), priority=3))
    await settle(lambda: desk.desk.queue.has_claim("best", 4))

    assert desk.desk.queue.has_claim("best", 4)
    assert not desk.desk.queue.has_claim("best", 2)
    place.leave()
    assert desk.desk.queue.depths() == {}


# a limit that changes


async def test_one_who_waits_is_served_as_soon_as_the_limit_rises_without_any_release() -> None:
    limit = 1
    store = MemoryStore(lambda: 0.0)
    desk = AdmissionDesk(store, lambda request: replace(request, cluster_limit=limit))
    assert isinstance(await asked(desk, asking()), LeaseGranted)
    place = Place(desk, joining(asking()))
    await settle()
    assert not place.answered.done()

    limit = 2
    desk.recheck("best")
    await settle(place.answered.done)

    assert place.lease.request.cluster_limit == 2


async def test_one_who_waited_gets_no_slot_that_the_limit_has_taken_away() -> None:
    limit = 2
    store = MemoryStore(lambda: 0.0)
    desk = AdmissionDesk(store, lambda request: replace(request, cluster_limit=limit))
    held = [await asked(desk, asking(cluster_limit=2)) for _ in range(2)]
    place = Place(desk, joining(asking(cluster_limit=2)))
    await settle()

    limit = 1
    assert isinstance(held[0], LeaseGranted)
    desk.release(held[0].lease)
    await settle()

    assert not place.answered.done()
    assert store.in_flight(Scope.CLUSTER, "best") == 1
