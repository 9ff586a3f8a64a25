"""Waits that have an end: queues that are full, times that are up, and when to come back."""

from __future__ import annotations

import asyncio

import pytest

from extproc.desk import Answer
from extproc.events import LeaseGranted, LeaseRefused
from headgate.store import Scope
from tests.extproc.desks import FOR_EVER, Desk, Place, asking, joining, settle


async def test_a_full_queue_refuses_at_once(desk: Desk) -> None:
    await desk.hold(asking())
    desk.wait("first", joining(asking(), depth=1))
    answers: list[Answer] = []

    assert desk.desk.wait(joining(asking(), depth=1), answers.append) is None

    assert answers == [LeaseRefused(Scope.CLUSTER, 1.0, "queue_full")]
    assert desk.desk.queue.depth("best") == 1


async def test_a_wait_ends_when_the_tier_says_so_and_leaves_the_queue(desk: Desk) -> None:
    held = await desk.hold(asking())

    answer = await desk.wait("waiting", joining(asking(), max_wait_seconds=0.01)).answered

    assert isinstance(answer, LeaseRefused)
    assert (answer.scope, answer.queue_reason) == (Scope.CLUSTER, "queue_timeout")
    assert answer.waited_seconds >= 0.009
    assert desk.desk.queue.depth("best") == 0
    desk.desk.release(held)
    await settle()
    assert desk.in_flight() == 0


async def test_a_tier_at_its_share_waits_in_vain_though_half_the_cluster_is_free(desk: Desk) -> None:
    batch = asking(tier="batch", cluster_limit=10, reserved={"premium": 0.5})
    for _ in range(5):
        await desk.hold(batch)

    answer = await desk.wait("batch", joining(batch, max_wait_seconds=0.01)).answered

    assert isinstance(answer, LeaseRefused)
    assert (answer.scope, answer.queue_reason) == (Scope.CLUSTER, "queue_timeout")
    assert (desk.in_flight(), desk.desk.queue.depths()) == (5, {})


@pytest.mark.parametrize(("others", "retry_after_seconds"), [(0, 1.0), (2, 34.6), (4, 69.2), (20, 120.0)])
async def test_one_who_waited_in_vain_is_told_when_those_still_waiting_will_have_been_served(
    desk: Desk, others: int, retry_after_seconds: float
) -> None:
    await desk.hold(asking())
    for number in range(others):
        desk.wait(str(number), joining(asking(tenant=f"t{number}")))
    in_vain = desk.wait("in vain", joining(asking(), max_wait_seconds=0.01))
    in_forty_seconds = asyncio.get_running_loop().time() + 40.0
    # Nobody was served meanwhile.
    lane = desk.desk.queue._lanes["best"]["premium"]
    lane.pace.look_ahead(10.0)
    lane.pace.watch(in_forty_seconds, is_contended=True)

    answer = await in_vain.answered

    assert isinstance(answer, LeaseRefused)
    assert answer.queue_reason == "queue_timeout"
    assert answer.retry_after_seconds == pytest.approx(retry_after_seconds, rel=0.01)


async def test_who_waits_no_time_at_all_is_asked_for_once_more(desk: Desk) -> None:
    waiting = desk.wait("waiting", joining(asking(), max_wait_seconds=0.0))

    assert isinstance(await waiting.answered, LeaseGranted)


async def test_a_wait_that_cannot_succeed_is_refused_at_once_with_the_time_it_would_take(desk: Desk) -> None:
    await desk.hold(asking())
    for number in range(20):
        desk.wait(str(number), joining(asking(tenant=f"t{number}"), max_wait_seconds=FOR_EVER))
    lane = desk.desk.queue._lanes["best"]["premium"]
    now = asyncio.get_running_loop().time()
    lane.pace.watch(now + 40.0, is_contended=True)

    place = Place.__new__(Place)
    place.answered = asyncio.get_running_loop().create_future()
    waiting = desk.desk.wait(joining(asking(), max_wait_seconds=10.0), place.answered.set_result)

    assert waiting is None
    answer = place.answered.result()
    assert isinstance(answer, LeaseRefused)
    assert (answer.queue_reason, answer.retry_after_seconds) == ("queue_too_long", 120.0)
