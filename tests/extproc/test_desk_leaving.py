"""Leaving a desk: at once, in every turn of the loop, and with no slot lost."""

from __future__ import annotations

import asyncio

import pytest

from extproc.events import LeaseRefused
from tests.extproc.desks import FOR_EVER, Desk, Place, asking, joining, settle


async def test_a_waiter_who_leaves_is_gone_at_once_and_takes_no_slot(desk: Desk) -> None:
    held = await desk.hold(asking())
    leaving = desk.wait("leaving", joining(asking()))
    desk.wait("staying", joining(asking()))

    leaving.leave()
    assert desk.desk.queue.depth("best") == 1

    desk.desk.release(held)
    await settle()
    assert (desk.served, desk.in_flight(), leaving.has_left) == (["staying"], 1, True)


@pytest.mark.parametrize("how", ["leaves", "gives up"])
async def test_the_place_of_one_who_goes_without_a_slot_is_the_next_ones_at_once(desk: Desk, how: str) -> None:
    await desk.hold(asking())
    going = desk.wait("going", joining(asking(), depth=1, max_wait_seconds=0.0 if how == "gives up" else FOR_EVER))

    if how == "leaves":
        going.leave()
    else:
        assert isinstance(await going.answered, LeaseRefused)
    coming = desk.wait("coming", joining(asking(), depth=1))
    await settle()

    assert not coming.answered.done()
    assert desk.desk.queue.depth("best") == 1


@pytest.mark.parametrize("turns_between", range(6))
async def test_a_slot_granted_around_the_turn_its_waiter_leaves_is_never_lost(desk: Desk, turns_between: int) -> None:
    held = await desk.hold(asking())
    leaving = desk.wait("leaving", joining(asking()))
    staying = desk.wait("staying", joining(asking()))

    desk.desk.release(held)
    for _ in range(turns_between):
        await asyncio.sleep(0)
    leaving.leave()
    await settle()

    if not leaving.has_left:
        desk.desk.release(leaving.lease)
        await settle()
    desk.desk.release(staying.lease)
    assert (desk.in_flight(), desk.desk.queue.depth("best")) == (0, 0)


async def test_leaving_after_the_answer_or_twice_changes_nothing(desk: Desk) -> None:
    held = await desk.hold(asking())
    served, leaving = (desk.wait(name, joining(asking())) for name in ("served", "leaving"))
    leaving.leave()

    desk.desk.release(held)
    await settle(served.answered.done)
    for place in (served, leaving):
        place.leave()
    await settle()

    assert (desk.in_flight(), desk.served, leaving.has_left) == (1, ["served"], True)


async def test_leaving_before_the_first_turn_leaves_nothing_behind(desk: Desk) -> None:
    held = await desk.hold(asking())
    waiting = Place(desk.desk, joining(asking()))

    waiting.leave()
    desk.desk.release(held)
    await settle()

    assert waiting.has_left
    assert (desk.desk.queue.depth("best"), desk.in_flight()) == (0, 0)
