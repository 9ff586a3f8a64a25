"""`python -m bench.latency`: parse the options, run the rounds, show and write the figures."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import asdict
from typing import Annotated

import typer
from rich.console import Console

from bench.command import benchmark
from bench.latency.memory import MemoryUse, bytes_per_open_request, sidecar_bytes
from bench.latency.stage import SIDECAR, Stage, running
from bench.latency.summary import Round, lines, summarize
from bench.latency.table import show
from bench.latency.trial import Loop, Mode, Plan, Trial, run_trial
from bench.machine import machine
from bench.resources import cpu_seconds
from bench.result import FOLDER, write_result
from headgate_cli.stack import Announce

_HELD_REQUESTS = 400
_IDLE_SECONDS = 2.0
_WARMUP = Plan(seconds=1.0, rounds=1, rate_per_second=100.0, connections=32)


def main(
    seconds: Annotated[float, typer.Option(min=0.5, help="Measured part of each run.")] = 5.0,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds of four runs each.")] = 3,
    rate: Annotated[float, typer.Option(min=1.0, help="Requests per second of the open loop.")] = 100.0,
    connections: Annotated[int, typer.Option(min=1, max=500, help="Requests in flight of the closed loop.")] = 32,
) -> None:
    """Measure what Headgate adds to a request, against Envoy alone in the same run."""
    plan = Plan(seconds=seconds, rounds=rounds, rate_per_second=rate, connections=connections)
    console = Console()
    with benchmark("latency", console) as announce:
        figures = _measure(plan, console, announce)
    console.print(f"written to {write_result('latency', figures)}", highlight=False)


def _measure(plan: Plan, console: Console, announce: Announce) -> dict[str, object]:
    facts = machine()
    announce("starting two Envoys, the sidecar and the upstream")
    with running(FOLDER / "latency") as stage:
        at_start_bytes = sidecar_bytes(stage)
        idle_percent = _idle_cpu_percent(stage)
        _warm_up(stage)
        measured = list(_rounds(stage, plan, announce))
        announce("holding requests open")
        per_open_request = bytes_per_open_request(stage, _HELD_REQUESTS)
        memory = MemoryUse(
            at_start_bytes=at_start_bytes, at_end_bytes=sidecar_bytes(stage), per_open_request_bytes=per_open_request
        )
    announce("")
    summary, table = summarize(measured), lines(measured)
    show(console, plan, table, summary, memory)
    return {
        **{name: spread["median"] for name, spread in asdict(summary).items()},
        "spread": summary,
        "runs": table,
        "rounds": measured,
        "sidecar_memory": memory,
        "sidecar_idle_cpu_percent": idle_percent,
        "plan": plan,
        "machine": facts,
    }


def _rounds(stage: Stage, plan: Plan, announce: Announce) -> Iterator[Round]:
    for number in range(plan.rounds):

        def trial(mode: Mode, loop: Loop, seed: int = number) -> Trial:
            announce(f"round {seed + 1} of {plan.rounds}: {loop} loop, {mode.replace('_', ' ')}")
            return run_trial(stage, plan, mode, loop, seed)

        yield Round(
            open_alone=trial(Mode.ENVOY_ALONE, Loop.OPEN),
            open_headgate=trial(Mode.HEADGATE, Loop.OPEN),
            closed_alone=trial(Mode.ENVOY_ALONE, Loop.CLOSED),
            closed_headgate=trial(Mode.HEADGATE, Loop.CLOSED),
        )


def _warm_up(stage: Stage) -> None:
    for mode in Mode:
        run_trial(stage, _WARMUP, mode, Loop.CLOSED, seed=0)


def _idle_cpu_percent(stage: Stage) -> float:
    """What the sidecar uses while nobody asks it anything, in percent of a core."""
    before = cpu_seconds(stage.pids[SIDECAR])
    time.sleep(_IDLE_SECONDS)
    return (cpu_seconds(stage.pids[SIDECAR]) - before) / _IDLE_SECONDS * 100


if __name__ == "__main__":
    typer.run(main)
