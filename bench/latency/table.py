"""The figures as tables on a terminal, and a word on how far they can be trusted."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from bench.latency.memory import MemoryUse
from bench.latency.summary import Line, Summary
from bench.latency.trial import Loop, Mode, Plan

_MODES = {Mode.ENVOY_ALONE: "Envoy alone", Mode.HEADGATE: "Headgate"}
_NOISY_CORES = 0.15


def show(console: Console, plan: Plan, lines: Sequence[Line], summary: Summary, memory: MemoryUse) -> None:
    """Print everything."""
    console.print(_runs(plan, lines))
    console.print(_figures(plan, summary, memory))
    others = max(line.other_cpu_cores.high for line in lines)
    if others > _NOISY_CORES:
        console.print(f"Other programs kept up to {others:.1f} cores busy: these figures are noisy.", style="yellow")


def _runs(plan: Plan, lines: Sequence[Line]) -> Table:
    loops = {
        Loop.OPEN: f"open {plan.rate_per_second:g}/s",
        Loop.CLOSED: f"closed {plan.connections}",
    }
    table = Table(title=f"milliseconds, and CPU in us per request (medians of {plan.rounds} rounds)")
    table.add_column("run")
    for name in ("p50", "p90", "p99", "req/s", "Envoy", "sidecar"):
        table.add_column(name, justify="right")
    for line in lines:
        times = (f"{spread.median:.2f}" for spread in (line.p50_ms, line.p90_ms, line.p99_ms))
        others = (f"{spread.median:.0f}" for spread in (line.requests_per_second, line.envoy_cpu_us))
        sidecar = f"{line.sidecar_cpu_us.median:.0f}" if line.mode is Mode.HEADGATE else "-"
        table.add_row(f"{loops[line.loop]}, {_MODES[line.mode]}", *times, *others, sidecar)
    return table


def _figures(plan: Plan, summary: Summary, memory: MemoryUse) -> Table:
    table = Table(title="what Headgate adds")
    table.add_column("figure")
    table.add_column("median (lowest .. highest)", justify="right")
    at_rate = f"at {plan.rate_per_second:g}/s"
    table.add_row(f"added p50 {at_rate}, ms", summary.added_p50_ms.text(2))
    table.add_row(f"added p99 {at_rate}, ms", summary.added_p99_ms.text(2))
    table.add_row("sidecar CPU per request, closed loop, us", summary.cpu_us_per_request.text(0))
    table.add_row(f"sidecar CPU per request, {at_rate}, us", summary.open_cpu_us_per_request.text(0))
    table.add_row("added Envoy CPU per request, closed loop, us", summary.added_envoy_cpu_us_per_request.text(0))
    table.add_row("requests/s over those of Envoy alone", summary.rps_ratio_to_envoy_alone.text(3))
    table.add_row("sidecar memory at start, MB", f"{memory.at_start_bytes / 1e6:.0f}")
    table.add_row("sidecar memory at the end, MB", f"{memory.at_end_bytes / 1e6:.0f}")
    table.add_row("sidecar memory per open request, KB", f"{memory.per_open_request_bytes / 1e3:.1f}")
    return table
