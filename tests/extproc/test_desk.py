"""Waiting for a slot: who is served by which release, and in which turn of the loop."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from extproc.events import LeaseGranted, LeaseRefused
from headgate.store import Lease, Scope
from tests.extproc.desks import Desk, Place, asked, asking, joining, settle

# asking once


async def test_a_free_slot_is_granted_at_once(desk: Desk) -> None:
    answer = await asked(desk.desk, asking())

    assert isinstance(answer, LeaseGranted)
    assert (answer.lease.request, answer.waited_seconds) == (asking(), 0.0)


async def test_a_full_scope_is_named(desk: Desk) -> None:
    await desk.hold(asking())

    assert await asked(desk.desk, asking()) == LeaseRefused(Scope.CLUSTER, 1.0)


# being served


async def test_a_release_serves_the_waiter(desk: Desk) -> None:
    held = await desk.hold(asking())
    waiting = desk.wait("waiter", joining(asking()))

    desk.desk.release(held)
    answer = await waiting.answered

    assert isinstance(answer, LeaseGranted)
    assert answer.waited_seconds > 0.0
    assert (desk.in_flight(), desk.desk.queue.depth("best")) == (1, 0)


async def test_one_release_serves_one_waiter(desk: Desk) -> None:
    held = await desk.hold(asking())
    for name in "ab":
        desk.wait(name, joining(asking()))

    desk.desk.release(held)
    await settle()

    assert (desk.served, desk.in_flight(), desk.desk.queue.depth("best")) == (["a"], 1, 1)


async def test_two_releases_in_one_turn_serve_two_waiters(desk: Desk) -> None:
    held = [await desk.hold(asking(cluster_limit=2)) for _ in range(2)]
    for name in "abc":
        desk.wait(name, joining(asking(cluster_limit=2)))

    for lease in held:
        desk.desk.release(lease)
    await settle()

    assert (desk.served, desk.in_flight()) == (["a", "b"], 2)


async def test_a_slot_goes_to_the_better_tier_and_within_it_to_who_came_first(desk: Desk) -> None:
    held = await desk.hold(asking())
    waiting = {}
    for name, priority in (("c1", 2), ("b1", 1), ("a1", 0), ("b2", 1), ("a2", 0)):
        waiting[name] = desk.wait(name, joining(asking(tier=name[0]), priority=priority))

    desk.desk.release(held)
    for expected in ("a1", "a2", "b1", "b2", "c1"):
        await settle(lambda: bool(desk.served))
        assert desk.served == [expected]
        desk.served.clear()
        desk.desk.release(waiting[expected].lease)

    assert (desk.in_flight(), desk.desk.queue.depths()) == (0, {})


async def test_a_release_serves_only_those_it_helps(desk: Desk) -> None:
    best, fast = await desk.hold(asking()), await desk.hold(asking(cluster="fast"))
    desk.wait("best", joining(asking()))
    desk.wait("fast", joining(asking(cluster="fast"), priority=1))

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
        desk.wait("blocked", joining(asking(**blocked)))
    desk.wait("behind", joining(asking(), priority=5))

    desk.desk.release(held)
    await settle()

    assert desk.served == ["behind"]


async def test_what_is_full_for_one_tier_may_be_free_for_another(desk: Desk) -> None:
    reserved = {"premium": 0.5}
    held = await desk.hold(asking(tier="batch", cluster_limit=2, reserved=reserved))
    desk.wait("batch", joining(asking(tier="batch", cluster_limit=2, reserved=reserved)))
    desk.wait("premium", joining(asking(cluster_limit=2, reserved=reserved), priority=5))

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
    assert isinstance(await asked(desk.desk, asking()), LeaseRefused)
    desk.store.release(held)
    waiting = Place(desk.desk, joining(asking()))
    await settle(waiting.answered.done)

    assert isinstance(waiting.lease, Lease)


async def test_nobody_is_served_inside_a_release(desk: Desk) -> None:
    held = await desk.hold(asking())
    waiting = desk.wait("waiting", joining(asking()))

    desk.desk.release(held)

    assert not waiting.answered.done()
    await settle(waiting.answered.done)
    assert desk.in_flight() == 1


async def test_who_comes_between_a_release_and_its_dispatch_does_not_pass_who_waits(desk: Desk) -> None:
    held = await desk.hold(asking())
    waiting = desk.wait("waiting", joining(asking()))

    desk.desk.release(held)
    newcomer = await asked(desk.desk, asking())

    assert newcomer == LeaseRefused(Scope.CLUSTER, 1.0)
    await settle(waiting.answered.done)
    assert isinstance(waiting.lease, Lease)


async def test_ten_thousand_who_wait_cost_no_task(desk: Desk) -> None:
    await desk.hold(asking())

    for _ in range(10_000):
        desk.wait("waiting", joining(asking(), depth=10_000))

    assert asyncio.all_tasks() == {asyncio.current_task()}
