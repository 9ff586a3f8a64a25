"""The figures as tables on a terminal, and whether the goals at twice the capacity are met."""

from __future__ import annotations

from collections.abc import Mapping

from rich.console import Console
from rich.table import Table

from bench.overload.details import Details
from bench.overload.score import Slos, SystemScore, TierScore
from bench.overload.systems import System

Scores = Mapping[str, Mapping[str, SystemScore]]
"""Load -> system -> figures."""

Whys = Mapping[str, Mapping[str, Details]]
"""Load -> system -> what lies behind the figures."""

_GOAL_LOAD = "2"
_PREMIUM = "premium"


def show(console: Console, scores: Scores, whys: Whys, slos: Slos) -> None:
    """Print everything."""
    for load, systems in scores.items():
        console.print(_tiers(load, systems, slos))
    console.print(_totals(scores))
    console.print(_refusals(whys))
    headgate = scores.get(_GOAL_LOAD, {}).get(System.HEADGATE)
    if headgate is not None:
        console.print(_goals(headgate, whys.get(_GOAL_LOAD, {}).get(System.HEADGATE), slos[_PREMIUM]))


def _tiers(load: str, systems: Mapping[str, SystemScore], slos: Slos) -> Table:
    table = Table(title=f"{load}x of capacity (simulated seconds)")
    table.add_column("tier, TTFT SLO")
    table.add_column("system")
    for name in ("in SLO", "served", "p50 s", "p95 s", "p99 s"):
        table.add_column(name, justify="right")
    for tier, slo in slos.items():
        for position, (name, score) in enumerate(systems.items()):
            label = f"{tier} {slo:g} s" if position == 0 else ""
            is_last = position == len(systems) - 1
            table.add_row(label, name, *_tier(score.tiers[tier]), end_section=is_last)
    return table


def _tier(score: TierScore) -> tuple[str, ...]:
    times = (score.ttft_p50_s, score.ttft_p95_s, score.ttft_p99_s)
    shown = ("-" if seconds is None else f"{seconds:.2f}" for seconds in times)
    return (f"{score.slo_attainment:.1%}", f"{score.served:.1%}", *shown)


def _totals(scores: Scores) -> Table:
    table = Table(title="totals")
    table.add_column("load")
    table.add_column("system")
    for name in ("goodput tok/s", "of 1x", "slots in use", "refusal p99 ms", "Jain"):
        table.add_column(name, justify="right")
    for load, systems in scores.items():
        for name, score in systems.items():
            table.add_row(f"{load}x", name, *_total(score))
    return table


def _total(score: SystemScore) -> tuple[str, ...]:
    ratio, refusal = score.goodput_ratio_to_1x, score.refusal_p99_ms
    return (
        f"{score.goodput_tokens_per_s:.0f}",
        "-" if ratio is None else f"{ratio:.2f}",
        f"{score.utilisation:.0%}",
        "-" if refusal is None else f"{refusal:.1f}",
        f"{score.jain:.3f}",
    )


def _refusals(whys: Whys) -> Table:
    table = Table(title="refusals, real milliseconds from request to answer")
    for name in ("load", "system", "reason"):
        table.add_column(name)
    for name in ("count", "p50 ms", "p99 ms"):
        table.add_column(name, justify="right")
    for load, systems in whys.items():
        for system, why in systems.items():
            for reason, times in why.refusals_ms.items():
                if times is not None:
                    table.add_row(
                        f"{load}x", system, reason[-40:], str(times.count), f"{times.p50:.1f}", f"{times.p99:.1f}"
                    )
    return table


def _goals(score: SystemScore, why: Details | None, premium_slo: float) -> Table:
    premium, ratio, refusal = score.tiers[_PREMIUM], score.goodput_ratio_to_1x or 0.0, score.refusal_p99_ms or 0.0
    p95 = premium.ttft_p95_s or 0.0
    on_arrival = why.refused_on_arrival_ms.p99 if why is not None and why.refused_on_arrival_ms else 0.0
    table = Table(title="Headgate's goals at 2x")
    for name in ("goal", "measured", "met"):
        table.add_column(name)
    for goal, measured, is_met in (
        (f"premium p95 TTFT <= {premium_slo:g} s", f"{p95:.2f} s", 0 < p95 <= premium_slo),
        ("premium SLO attainment >= 99 %", f"{premium.slo_attainment:.1%}", premium.slo_attainment >= 0.99),
        ("goodput >= 95 % of 1x", f"{ratio:.1%}", ratio >= 0.95),
        ("every refusal within 10 ms (p99)", f"{refusal:.1f} ms", refusal <= 10.0),
        ("... of those not after a wait", f"{on_arrival:.1f} ms", on_arrival <= 10.0),
    ):
        table.add_row(goal, measured, "yes" if is_met else "NO")
    return table
