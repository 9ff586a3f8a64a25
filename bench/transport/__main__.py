"""`python -m bench.transport`: parse the options, run the rounds, show and write the figures."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import asdict
from typing import Annotated

import typer
from rich.console import Console

from bench.command import benchmark
from bench.machine import machine
from bench.result import FOLDER, write_result
from bench.transport.edge import EXT_PROC
from bench.transport.held_streams import HeldStreams, hold_streams
from bench.transport.stage import Stage, Subject, running, served, server_command
from bench.transport.summary import Round, lines, summarize
from bench.transport.table import show
from bench.transport.trial import Loop, Plan, kinds_of_run, run_trial
from headgate_cli.stack import Announce

_HELD_STREAMS = 10_000
_IDLE_SECONDS = 3.0
_WARMUP = Plan(seconds=1.0, rounds=1, rate_per_second=100.0, connections=16)


def main(
    seconds: Annotated[float, typer.Option(min=0.5, help="Measured part of each run.")] = 3.0,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds, in which every server has its turn.")] = 5,
    rate: Annotated[float, typer.Option(min=1.0, help="Requests per second of the open loop.")] = 200.0,
    connections: Annotated[int, typer.Option(min=1, max=16, help="Requests in flight of the closed loop.")] = 16,
    python: Annotated[str, typer.Option(help="The servers' interpreter: this one, or another 3.11.")] = sys.executable,
) -> None:
    """Measure what a stream costs the server: the lean transport, grpcio, grpc-go, and the real decision."""
    plan = Plan(seconds=seconds, rounds=rounds, rate_per_second=rate, connections=connections)
    console = Console()
    with benchmark("transport", console) as announce:
        figures = _measure(plan, python, console, announce)
    console.print(f"written to {write_result('transport', figures)}", highlight=False)


def _measure(plan: Plan, python: str, console: Console, announce: Announce) -> dict[str, object]:
    facts = machine()
    announce("holding streams open")
    held = _hold(python)
    announce("building the Go peer, starting the servers and Envoy")
    with running(FOLDER / "transport", python) as stage:
        for subject in stage.subjects:
            run_trial(stage, _WARMUP, subject, EXT_PROC, Loop.CLOSED, seed=0)
        rounds = list(_rounds(stage, plan, announce))
    announce("")
    summary, table = summarize(rounds), lines(rounds)
    show(console, plan, table, summary, held)
    return {
        **{name: spread and spread["median"] for name, spread in asdict(summary).items()},
        "bytes_per_open_stream": held.bytes_per_open_stream,
        "spread": summary,
        "held_streams": held,
        "runs": table,
        "plan": plan,
        "python": python,
        "machine": facts,
    }


def _rounds(stage: Stage, plan: Plan, announce: Announce) -> Iterator[Round]:
    for number in range(plan.rounds):
        trials = []
        for subject, kind, loop in kinds_of_run(stage):
            announce(f"round {number + 1} of {plan.rounds}: {kind}, {loop} loop, {subject}")
            trials.append(run_trial(stage, plan, subject, kind, loop, seed=number))
        yield trials


def _hold(python: str) -> HeldStreams:
    with served(server_command(Subject.LEAN, python)) as (address, pid):
        return hold_streams(address, pid, _HELD_STREAMS, _IDLE_SECONDS)


if __name__ == "__main__":
    typer.run(main)
