"""Each part killed without a word while requests run and wait; what is left goes on, and nothing stays held."""

from __future__ import annotations

import signal
from collections.abc import Callable

from tests.chaos.crowd import Verdict, Visit, all_over
from tests.chaos.load import COMING, LIMIT, POLICY, serve_some_more, under_load, visits
from tests.chaos.stage import Shape, Sidecar, Stage, until

NewStage = Callable[[Shape], Stage]


async def test_the_leases_of_an_envoy_that_is_killed_are_back_at_once(new_stage: NewStage) -> None:
    stage = new_stage(Shape(POLICY))
    cast = stage.start(envoys=2)
    sidecar, [(port, envoy), (other_port, _)] = cast.sidecar, cast.envoys
    cut_off = await under_load(stage, sidecar, port)
    waiting = visits(LIMIT, first=1000)
    await stage.send(other_port, waiting)
    await until(lambda: _has_waiting(sidecar, COMING), "the other Envoy's stand in the line")

    envoy.send(signal.SIGKILL)
    # Long before anything that only a silence would tell: keepalive and expiry take many seconds.
    await until(lambda: _run(stage, waiting), "all slots are the other Envoy's", seconds=5.0)
    await all_over(cut_off)
    await stage.record("open")
    await all_over(waiting)

    assert not any(visit.is_complete for visit in cut_off)
    assert all(visit.is_served for visit in waiting)
    await until(sidecar.holds_nothing, "all is given back")
    await serve_some_more(stage, other_port)
    await until(sidecar.holds_nothing, "all is given back")


async def _has_waiting(sidecar: Sidecar, count: int) -> bool:
    return await sidecar.total("headgate_queue_depth") == count


async def _run(stage: Stage, coming: list[Visit]) -> bool:
    running = (await stage.record()).running
    return all(f"request:{visit.script.request}" in running for visit in coming)


async def test_a_sidecar_that_is_killed_cuts_what_runs_and_the_next_begins_with_nothing(new_stage: NewStage) -> None:
    """Envoy is rendered to fail closed: a request whose stream breaks is ended with it, so no slot is taken twice."""
    stage = new_stage(Shape(POLICY))
    cast = stage.start()
    [(sidecar, process)], port = cast.sidecars, cast.port
    coming = await under_load(stage, sidecar, port)

    process.send(signal.SIGKILL)
    await all_over(coming)
    await until(lambda: _is_idle(stage), "nothing runs at the upstream")
    late = visits(10, first=1000)
    await stage.send(port, late)
    await all_over(late)

    was_running = [visit for visit in coming if visit.status == 200]
    assert len(was_running) == LIMIT
    assert not any(visit.is_complete for visit in was_running)
    refused = [visit for visit in coming if visit.status != 200] + late
    assert {(visit.status, visit.is_complete) for visit in refused} == {(503, True)}
    stage.restart_sidecar(sidecar)
    assert await sidecar.holds_nothing()
    await until(lambda: _serves(stage, port), "Envoy has found the new sidecar")
    await serve_some_more(stage, port)
    await until(sidecar.holds_nothing, "all is given back")


async def _is_idle(stage: Stage) -> bool:
    return not (await stage.record()).running


async def _serves(stage: Stage, port: int) -> bool:
    await stage.record("open")
    [probe] = coming = visits(1, first=5000)
    await stage.send(port, coming)
    await all_over(coming)
    return probe.is_served


async def test_an_upstream_that_is_killed_takes_no_slot_with_it(new_stage: NewStage) -> None:
    stage = new_stage(Shape(POLICY))
    cast = stage.start()
    sidecar, port = cast.sidecar, cast.port
    coming = await under_load(stage, sidecar, port)

    cast.upstream.send(signal.SIGKILL)
    await all_over(coming)

    was_running = [visit for visit in coming if visit.status == 200]
    assert len(was_running) == LIMIT
    assert not any(visit.is_complete for visit in was_running)
    told = {(visit.status, visit.is_complete, visit.verdict) for visit in coming if visit.status != 200}
    assert told == {(503, True, Verdict.QUEUE)}
    await until(sidecar.holds_nothing, "all is given back")
    stage.restart_upstream()
    await until(lambda: _serves(stage, port), "Envoy has found the new upstream")
    await serve_some_more(stage, port)
