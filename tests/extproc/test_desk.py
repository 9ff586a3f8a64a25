"""Waiting for a slot: who is served by which release, and that nobody who left takes one."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from extproc.desk import AdmissionDesk, Answer
from extproc.events import AcquireLease, JoinQueue, LeaseGranted, LeaseRefused, StoreFailed
from headgate.errors import StoreUnavailable
from headgate.policy.model import Queue
from headgate.store import Lease, LeaseRequest, Refused, Scope
from headgate.store.memory import MemoryStore

FOR_EVER = 3600.0
TURNS = 50


def asking(tenant: str = "acme", cluster: str = "best", tier: str = "premium", **limits: Any) -> LeaseRequest:
    """For a cluster of one slot unless told otherwise."""
    return LeaseRequest(**{"tenant": tenant, "tier": tier, "cluster": cluster, "cluster_limit": 1} | limits)


def joining(
    request: LeaseRequest, *, priority: int = 0, max_wait_seconds: float = FOR_EVER, depth: int = 100
) -> JoinQueue:
    return JoinQueue(
        request=request,
        queue=Queue(max_wait_seconds=max_wait_seconds, max_depth=depth),
        priority=priority,
        weight=1.0,
        size_bytes=100,
        max_wait_seconds=max_wait_seconds,
        give_up_reason="queue_timeout",
        scope=Scope.CLUSTER,
    )


async def settle(until: Callable[[], bool] = lambda: False) -> None:
    """Let the loop turn until the condition holds, or often enough for all that can happen to have happened."""
    for _ in range(TURNS):
        if until():
            return
        await asyncio.sleep(0)


class Desk:
    """A desk over a memory store, and who waits at it."""

    def __init__(self) -> None:
        self.store = MemoryStore(lambda: 0.0)
        self.desk = AdmissionDesk(self.store)
        self.served: list[str] = []

    async def hold(self, request: LeaseRequest) -> Lease:
        answer = await self.desk.acquire(AcquireLease(request, 0))
        assert isinstance(answer, LeaseGranted)
        return answer.lease

    async def wait(self, name: str, effect: JoinQueue) -> asyncio.Task[Answer]:
        """Stand in the queue under a name that shows in `served` when a slot is granted."""
        task = asyncio.create_task(self.desk.wait(effect))
        task.add_done_callback(lambda done: self._note(name, done))
        await asyncio.sleep(0)
        return task

    def _note(self, name: str, done: asyncio.Task[Answer]) -> None:
        if not done.cancelled() and isinstance(done.result(), LeaseGranted):
            self.served.append(name)

    def in_flight(self, cluster: str = "best") -> int:
        return self.store.in_flight(Scope.CLUSTER, cluster)


@pytest.fixture
def desk() -> Desk:
    return Desk()


def lease_of(task: asyncio.Task[Answer]) -> Lease:
    answer = task.result()
    assert isinstance(answer, LeaseGranted)
    return answer.lease


# asking once


async def test_a_free_slot_is_granted_at_once(desk: Desk) -> None:
    answer = await desk.desk.acquire(AcquireLease(asking(), 0))

    assert isinstance(answer, LeaseGranted)
    assert (answer.lease.request, answer.waited_seconds) == (asking(), 0.0)


async def test_a_full_scope_is_named(desk: Desk) -> None:
    await desk.hold(asking())

    assert await desk.desk.acquire(AcquireLease(asking(), 0)) == LeaseRefused(Scope.CLUSTER, 1.0)


# being served


async def test_a_release_serves_the_waiter(desk: Desk) -> None:
    held = await desk.hold(asking())
    waiting = await desk.wait("waiter", joining(asking()))

    desk.desk.release(held)
    answer = await waiting

    assert isinstance(answer, LeaseGranted)
    assert answer.waited_seconds > 0.0
    assert (desk.in_flight(), desk.desk.queue.depth("best")) == (1, 0)


async def test_one_release_serves_one_waiter(desk: Desk) -> None:
    held = await desk.hold(asking())
    for name in "ab":
        await desk.wait(name, joining(asking()))

    desk.desk.release(held)
    await settle()

    assert (desk.served, desk.in_flight(), desk.desk.queue.depth("best")) == (["a"], 1, 1)


async def test_two_releases_in_one_turn_serve_two_waiters(desk: Desk) -> None:
    held = [await desk.hold(asking(cluster_limit=2)) for _ in range(2)]
    for name in "abc":
        await desk.wait(name, joining(asking(cluster_limit=2)))

    for lease in held:
        desk.desk.release(lease)
    await settle()

    assert (desk.served, desk.in_flight()) == (["a", "b"], 2)


async def test_a_slot_goes_to_the_better_tier_and_within_it_to_who_came_first(desk: Desk) -> None:
    held = await desk.hold(asking())
    waiting = {}
    for name, priority in (("c1", 2), ("b1", 1), ("a1", 0), ("b2", 1), ("a2", 0)):
        waiting[name] = await desk.wait(name, joining(asking(tier=name[0]), priority=priority))

    desk.desk.release(held)
    for expected in ("a1", "a2", "b1", "b2", "c1"):
        await settle(lambda: bool(desk.served))
        assert desk.served == [expected]
        desk.served.clear()
        desk.desk.release(lease_of(waiting[expected]))

    assert (desk.in_flight(), desk.desk.queue.depths()) == (0, {})


async def test_a_release_serves_only_those_it_helps(desk: Desk) -> None:
    best, fast = await desk.hold(asking()), await desk.hold(asking(cluster="fast"))
    await desk.wait("best", joining(asking()))
    await desk.wait("fast", joining(asking(cluster="fast"), priority=1))

    desk.desk.release(fast)
    await settle()
    assert desk.served == ["fast"]

    desk.desk.release(best)
    await settle()
    assert desk.served == ["fast", "best"]


@pytest.mark.parametrize(
    "blocked",
    [
        {"tenant": "globex", "tenant_limit": 0},
        {"tier": "batch", "tier_limit": 0},
        {"cluster": "fast", "cluster_limit": 0},
        {"tenant": "globex", "tokens": 1000, "cluster_token_limit": 10, "cluster_limit": 2},
    ],
    ids=["its tenant is full", "its tier is full", "its cluster is full", "it is too large for now"],
)
async def test_no_waiter_stands_behind_one_who_waits_for_something_else(desk: Desk, blocked: dict[str, Any]) -> None:
    held = await desk.hold(asking())
    for _ in range(3):
        await desk.wait("blocked", joining(asking(**blocked)))
    await desk.wait("behind", joining(asking(), priority=5))

    desk.desk.release(held)
    await settle()

    assert desk.served == ["behind"]


async def test_what_is_full_for_one_tier_may_be_free_for_another(desk: Desk) -> None:
    reserved = {"premium": 0.5}
    held = await desk.hold(asking(tier="batch", cluster_limit=2, reserved=reserved))
    await desk.wait("batch", joining(asking(tier="batch", cluster_limit=2, reserved=reserved)))
    await desk.wait("premium", joining(asking(cluster_limit=2, reserved=reserved), priority=5))

    other = await desk.hold(asking(cluster="fast"))
    desk.desk.release(other)
    await settle()

    assert desk.served == ["premium"]
    desk.desk.release(held)
    await settle()
    assert desk.served == ["premium", "batch"]


async def test_one_refused_just_before_a_release_is_not_left_waiting_for_the_next(desk: Desk) -> None:
    held = await desk.hold(asking())

    # The release comes between the refusal and the wait, and finds nobody waiting yet.
    assert isinstance(await desk.desk.acquire(AcquireLease(asking(), 0)), LeaseRefused)
    desk.store.release(held)
    waiting = asyncio.create_task(desk.desk.wait(joining(asking())))
    await settle(waiting.done)

    assert isinstance(lease_of(waiting), Lease)


# leaving


async def test_a_cancelled_waiter_is_gone_at_once_and_takes_no_slot(desk: Desk) -> None:
    held = await desk.hold(asking())
    leaving = await desk.wait("leaving", joining(asking()))
    await desk.wait("staying", joining(asking()))

    leaving.cancel()
    await settle(leaving.done)
    assert desk.desk.queue.depth("best") == 1

    desk.desk.release(held)
    await settle()
    assert (desk.served, desk.in_flight()) == (["staying"], 1)


@pytest.mark.parametrize("turns_between", range(6))
async def test_a_slot_granted_around_the_turn_its_waiter_leaves_is_never_lost(desk: Desk, turns_between: int) -> None:
    held = await desk.hold(asking())
    leaving = await desk.wait("leaving", joining(asking()))
    staying = await desk.wait("staying", joining(asking()))

    desk.desk.release(held)
    for _ in range(turns_between):
        await asyncio.sleep(0)
    leaving.cancel()
    await settle()

    if not leaving.cancelled():
        desk.desk.release(lease_of(leaving))
        await settle()
    desk.desk.release(lease_of(staying))
    assert (desk.in_flight(), desk.desk.queue.depth("best")) == (0, 0)


async def test_a_slot_granted_in_the_turn_of_the_cancellation_is_given_back(desk: Desk) -> None:
    held = await desk.hold(asking())
    leaving = await desk.wait("leaving", joining(asking()))

    desk.desk.release(held)
    await settle(lambda: desk.in_flight() == 1)
    assert not leaving.done()
    leaving.cancel()
    await settle(leaving.done)

    assert leaving.cancelled()
    await settle(lambda: desk.in_flight() == 0)
    assert desk.in_flight() == 0


async def test_leaving_before_the_first_turn_leaves_nothing_behind(desk: Desk) -> None:
    await desk.hold(asking())
    waiting = asyncio.create_task(desk.desk.wait(joining(asking())))

    waiting.cancel()
    await settle(waiting.done)

    assert waiting.cancelled()
    assert desk.desk.queue.depth("best") == 0


# bounds


async def test_a_full_queue_refuses_at_once(desk: Desk) -> None:
    await desk.hold(asking())
    await desk.wait("first", joining(asking(), depth=1))

    assert await desk.desk.wait(joining(asking(), depth=1)) == LeaseRefused(Scope.CLUSTER, 1.0, "queue_full")
    assert desk.desk.queue.depth("best") == 1


async def test_a_wait_ends_when_the_tier_says_so_and_leaves_the_queue(desk: Desk) -> None:
    held = await desk.hold(asking())

    answer = await desk.desk.wait(joining(asking(), max_wait_seconds=0.01))

    assert isinstance(answer, LeaseRefused)
    assert (answer.scope, answer.queue_reason) == (Scope.CLUSTER, "queue_timeout")
    assert answer.waited_seconds >= 0.009
    assert desk.desk.queue.depth("best") == 0
    desk.desk.release(held)
    await settle()
    assert desk.in_flight() == 0


# the store


class FailingStore(MemoryStore):
    """Gives no answer while told so."""

    is_down = True

    async def acquire(self, request: LeaseRequest) -> Lease | Refused:
        if self.is_down:
            raise StoreUnavailable
        return await super().acquire(request)


async def test_a_store_without_an_answer_is_an_answer() -> None:
    desk = AdmissionDesk(FailingStore(lambda: 0.0))

    assert await desk.acquire(AcquireLease(asking(), 0)) == StoreFailed()


async def test_waiters_outlast_a_store_that_fails_for_a_while() -> None:
    store = FailingStore(lambda: 0.0)
    store.is_down = False
    desk = AdmissionDesk(store)
    held = [await desk.acquire(AcquireLease(asking(cluster_limit=2), 0)) for _ in range(2)]
    waiting = asyncio.create_task(desk.wait(joining(asking(cluster_limit=2))))
    await asyncio.sleep(0)
    first, second = (answer.lease for answer in held if isinstance(answer, LeaseGranted))

    store.is_down = True
    desk.release(first)
    await settle()
    assert not waiting.done()

    store.is_down = False
    desk.release(second)
    await settle(waiting.done)
    assert isinstance(lease_of(waiting), Lease)


async def test_a_slot_granted_to_one_who_left_while_the_store_answered_goes_to_the_next() -> None:
    class SlowStore(MemoryStore):
        async def acquire(self, request: LeaseRequest) -> Lease | Refused:
            answer = await super().acquire(request)
            for _ in range(5):
                await asyncio.sleep(0)
            return answer

    store = SlowStore(lambda: 0.0)
    desk = AdmissionDesk(store)
    held = await desk.acquire(AcquireLease(asking(), 0))
    assert isinstance(held, LeaseGranted)
    leaving, staying = (asyncio.create_task(desk.wait(joining(asking()))) for _ in range(2))
    await asyncio.sleep(0)

    desk.release(held.lease)
    await settle(lambda: store.in_flight(Scope.CLUSTER, "best") == 1)
    leaving.cancel()
    await settle(staying.done)

    assert leaving.cancelled()
    desk.release(lease_of(staying))
    assert store.in_flight(Scope.CLUSTER, "best") == 0
