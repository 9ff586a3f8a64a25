"""All of a crowd leaving in the same moment is no flood: those who stay are served."""

from __future__ import annotations

from collections.abc import Callable

from tests.chaos.crowd import Leaving, Visit, all_over
from tests.chaos.load import LIMIT, POLICY, visits
from tests.chaos.stage import Shape, Sidecar, Stage, script, until

NewStage = Callable[[Shape], Stage]
LEAVERS = 2600


async def test_those_who_stay_are_served_when_thousands_leave_as_soon_as_they_came(new_stage: NewStage) -> None:
    stage = new_stage(Shape(POLICY))
    cast = stage.start()
    sidecar, port = cast.sidecar, cast.port
    await stage.record("close")
    staying = visits(LIMIT)
    await stage.send(port, staying)
    await until(lambda: all(visit.status for visit in staying), "those who stay run")

    leaving = [Visit(script(1000 + n, "acme", "premium"), "acme", Leaving.ONCE_SENT) for n in range(LEAVERS)]
    await stage.send(port, leaving)
    await all_over(leaving)
    await until(lambda: _holds_only(sidecar, LIMIT), "those who left are forgotten")
    await stage.record("open")
    await all_over(staying)

    assert all(visit.is_served for visit in staying)
    await until(sidecar.holds_nothing, "all is given back")


async def _holds_only(sidecar: Sidecar, count: int) -> bool:
    return await sidecar.total("headgate_open_streams") == count
