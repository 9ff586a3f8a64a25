"""`python -m bench.overload`: find 1x, run every system under every load, show and write the figures and pictures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from bench.command import benchmark
from bench.machine import machine
from bench.overload.capacity import Capacity, find_capacity
from bench.overload.cell import Cell, measure
from bench.overload.details import Details, details
from bench.overload.mix import MIX
from bench.overload.plan import Plan
from bench.overload.plots import NoPlots, draw
from bench.overload.record import utilisation
from bench.overload.score import Slos, SystemScore, goodput, system_score
from bench.overload.stage import POLICY
from bench.overload.systems import System
from bench.overload.table import show
from bench.overload.trace import DEFAULT_TRACE, TraceRequest, read_trace
from bench.overload.workload import build
from bench.result import FOLDER, write_result
from headgate.errors import HeadgateError
from headgate.policy.load import load_policy
from headgate_cli.stack import Announce

_HERE = FOLDER / "overload"
_NOISY_CORES = 0.5


class NoPromise(HeadgateError):  # noqa: N818  (says what happened)
    """Raised when there is no policy, or a tier of it promises nothing that could be measured."""


def main(
    systems: Annotated[str, typer.Option(help="Comma-separated.")] = ",".join(System),
    loads: Annotated[str, typer.Option(help="Multiples of the capacity, comma-separated.")] = "0.5,1,2,4",
    seconds: Annotated[float, typer.Option(min=10, help="Measured part of each run, simulated.")] = 120.0,
    time_factor: Annotated[float, typer.Option(min=0.1, max=10, help="Simulated seconds per second.")] = 4.0,
    seed: Annotated[int, typer.Option(help="Of who asks when.")] = 1,
    trace: Annotated[Path, typer.Option(help="Azure LLM inference trace, CSV.")] = DEFAULT_TRACE,
    policy: Annotated[Path, typer.Option(help="In simulated seconds.")] = POLICY,
) -> None:
    """Compare what gateways make of an overloaded, simulated cluster."""
    console = Console()
    with benchmark("overload", console) as announce:
        plan = _plan(systems, loads, seconds, time_factor, seed, policy)
        slos = read_slos(policy)
        requests = read_trace(trace)
        announce("measuring the cluster's capacity")
        capacity = find_capacity(requests, plan, slos)
        cells = _measure(plan, requests, capacity, announce)
        announce("")
        _report(console, plan, slos, capacity, cells)


def read_slos(path: Path) -> Slos:
    """Tier -> promised TTFT of the policy, for the tiers of the load in their order.

    Raises:
        PolicyError: it is wrong.
        NoPromise: a tier of the load promises none.
    """
    tiers = load_policy(_bytes(path), str(path)).tiers
    slos = {name: tiers[name].ttft_slo_seconds for name in MIX if name in tiers}
    if missing := [name for name in MIX if slos.get(name) is None]:
        raise NoPromise(f"{path}: no slo.ttft for the tier {', '.join(missing)}")
    return {name: slo for name, slo in slos.items() if slo is not None}


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise NoPromise(f"{path}: {error.strerror}") from None


def _plan(systems: str, loads: str, seconds: float, time_factor: float, seed: int, policy: Path) -> Plan:
    try:
        return Plan(
            systems=tuple(System(name.strip()) for name in systems.split(",")),
            loads=tuple(float(load) for load in loads.split(",")),
            seconds=seconds,
            time_factor=time_factor,
            seed=seed,
            policy=policy,
        )
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None


def _measure(plan: Plan, trace: Sequence[TraceRequest], capacity: Capacity, announce: Announce) -> list[Cell]:
    cells = []
    for load in plan.loads:
        arrivals = build(trace, load * capacity.rate_per_second, plan.total_seconds, plan.seed)
        for system in plan.systems:
            wall_seconds = plan.total_seconds / plan.time_factor
            announce(f"{system} at {load:g}x: {len(arrivals)} requests in {wall_seconds:.0f} s")
            cells.append(measure(plan, load, system, arrivals, _HERE / f"{load:g}x-{system}"))
    return cells


def _report(console: Console, plan: Plan, slos: Slos, capacity: Capacity, cells: Sequence[Cell]) -> None:
    reference, kind = _reference(plan, slos, capacity, cells)
    scores: dict[str, dict[str, SystemScore]] = {}
    whys: dict[str, dict[str, Details]] = {}
    for cell in cells:
        score = system_score(
            cell.outcomes,
            slos,
            plan.window,
            utilisation=utilisation(cell.records, plan.window),
            reference_tokens_per_s=reference,
        )
        scores.setdefault(f"{cell.load:g}", {})[cell.system] = score
        whys.setdefault(f"{cell.load:g}", {})[cell.system] = details(cell, plan.window)
    show(console, scores, whys, slos)
    console.print(f"1x is {capacity.rate_per_second:.2f} requests/s (simulated) and {reference:.0f} tokens/s ({kind}).")
    others = max(cell.cpu_cores["others"] for cell in cells)
    if others > _NOISY_CORES:
        console.print(
            f"Other programs kept up to {others:.1f} cores busy: real milliseconds are noisy.", style="yellow"
        )
    facts = {"capacity": capacity, "reference_tokens_per_s": reference, "reference": kind, "slos": slos}
    written = [
        write_result("overload", scores),
        write_result("overload_details", {**facts, "plan": _shown(plan), "machine": machine(), "cells": whys}),
    ]
    try:
        written += draw(scores, slos, _HERE)
    except NoPlots as missing:
        console.print(str(missing), style="yellow")
    for path in written:
        console.print(f"written to {path}", highlight=False)


def _reference(plan: Plan, slos: Slos, capacity: Capacity, cells: Sequence[Cell]) -> tuple[float, str]:
    """What the cluster gives at 1x: as measured behind Envoy alone, else as the engines give it in virtual time."""
    for cell in cells:
        if cell.load == 1 and cell.system is System.LEAST_REQUEST:
            return goodput(cell.outcomes, slos, plan.window), "measured behind Envoy least-request"
    return capacity.goodput_tokens_per_s, "engines in virtual time"


def _shown(plan: Plan) -> dict[str, object]:
    return {
        "seconds": plan.seconds,
        "warmup_seconds": plan.warmup_seconds,
        "tail_seconds": plan.tail_seconds,
        "time_factor": plan.time_factor,
        "seed": plan.seed,
        "shape": plan.shape,
    }


if __name__ == "__main__":
    typer.run(main)
