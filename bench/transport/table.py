"""The figures as tables on a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

from rich.console import Console
from rich.table import Table

from bench.spread import Spread
from bench.transport.held_streams import HeldStreams
from bench.transport.summary import Line, Summary
from bench.transport.trial import Loop, Plan


def show(console: Console, plan: Plan, lines: Sequence[Line], summary: Summary, held: HeldStreams) -> None:
    """Print everything."""
    console.print(_runs(plan, lines))
    console.print(_figures(summary, held))


def _runs(plan: Plan, lines: Sequence[Line]) -> Table:
    loops = {Loop.OPEN: f"open, {plan.rate_per_second:g}/s", Loop.CLOSED: f"closed, {plan.connections}"}
    table = Table(title=f"transport (medians of {plan.rounds} rounds)")
    for name in ("call", "loop", "server"):
        table.add_column(name)
    for name in ("CPU us a call", "p50 ms", "p99 ms", "req/s"):
        table.add_column(name, justify="right")
    for line in lines:
        times = (f"{spread.median:.2f}" for spread in (line.p50_ms, line.p99_ms))
        rps = f"{line.requests_per_second.median:.0f}"
        table.add_row(line.kind, loops[line.loop], line.subject, line.cpu_us.text(1), *times, rps)
    return table


def _figures(summary: Summary, held: HeldStreams) -> Table:
    table = Table(title="what the transport costs")
    table.add_column("figure")
    table.add_column("median (lowest .. highest)", justify="right")
    for name, spread in asdict(summary).items():
        table.add_row(name, "not measured: no Go peer" if spread is None else Spread(**spread).text(3))
    table.add_row("bytes_per_open_stream", f"{held.bytes_per_open_stream:.0f}")
    table.add_row(f"CPU of {held.streams:,} idle streams, % of a core", f"{held.idle_cpu_percent:.2f}")
    return table
