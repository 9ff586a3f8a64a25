"""SIGTERM under load: not ready at once, those who wait are answered, what runs is not cut, and the process ends."""

from __future__ import annotations

import signal
from collections.abc import Callable

from tests.chaos.crowd import Verdict, Visit, all_over
from tests.chaos.load import LIMIT, POLICY, under_load, visits
from tests.chaos.stage import Shape, Sidecar, Stage, until

NewStage = Callable[[Shape], Stage]
GRACE = {"HEADGATE_GRACE_SECONDS": "8"}


async def test_a_sidecar_that_is_told_to_stop_answers_all_and_cuts_nobody(new_stage: NewStage) -> None:
    stage = new_stage(Shape(POLICY, sidecar_environment=GRACE))
    cast = stage.start()
    [(sidecar, process)], port = cast.sidecars, cast.port
    coming = await under_load(stage, sidecar, port)

    process.send(signal.SIGTERM)
    await until(lambda: _is_draining(sidecar), "no more work is welcome")
    await until(lambda: _all_answered(coming), "all who wait are answered")
    late = visits(20, first=1000)
    await stage.send(port, late)
    await until(lambda: process.has_ended, "the process has ended", seconds=8.0)
    # It has ended, and what it had let through runs on.
    assert (await stage.record()).running["cluster:big"] >= LIMIT
    await stage.record("open")
    await all_over([*coming, *late])

    ran = [visit for visit in coming if visit.status == 200]
    assert len(ran) == LIMIT
    assert all(visit.is_served for visit in ran)
    waited = [visit for visit in coming if visit.status != 200]
    assert {(visit.status, visit.verdict, visit.reason) for visit in waited} == {(503, Verdict.REJECT, "shutting_down")}
    assert {visit.status for visit in late} <= {200, 503}
    assert all(visit.is_complete for visit in late)


async def _is_draining(sidecar: Sidecar) -> bool:
    return await sidecar.readiness() == 503


def _all_answered(coming: list[Visit]) -> bool:
    return sum(visit.status == 200 and not visit.over.done() for visit in coming) == LIMIT and all(
        visit.over.done() for visit in coming if visit.status != 200
    )
