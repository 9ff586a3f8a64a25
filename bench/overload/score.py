"""Outcomes -> the figures of one system under one load. Definitions are in README.md; plain arithmetic here."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from bench.overload.fairness import fairness
from bench.overload.outcome import Ending, Outcome, Window
from bench.percentiles import nearest_rank

Slos = Mapping[str, float]
"""Tier -> its promised time to first token in simulated seconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TierScore:
    """One tier: shares are of all its requests that came in the window, TTFT of those served; None if none were."""

    served: float
    ttft_p50_s: float | None
    ttft_p95_s: float | None
    ttft_p99_s: float | None
    slo_attainment: float


@dataclass(frozen=True, slots=True, kw_only=True)
class SystemScore:
    """One system under one load; None where there is nothing to measure."""

    tiers: dict[str, TierScore]
    goodput_tokens_per_s: float
    goodput_ratio_to_1x: float | None
    utilisation: float
    refusal_p99_ms: float | None
    jain: float


def tier_score(outcomes: Sequence[Outcome], slo_seconds: float) -> TierScore:
    """The figures of one tier; a refused request has missed its SLO."""
    served = [outcome for outcome in outcomes if outcome.is_served]
    ordered = sorted(outcome.ttft_seconds or 0.0 for outcome in served)
    met = sum(meets(outcome, slo_seconds) for outcome in outcomes)
    total = max(1, len(outcomes))
    return TierScore(
        served=len(served) / total,
        ttft_p50_s=_rank(ordered, 50),
        ttft_p95_s=_rank(ordered, 95),
        ttft_p99_s=_rank(ordered, 99),
        slo_attainment=met / total,
    )


def meets(outcome: Outcome, slo_seconds: float) -> bool:
    """Whether it was served, and its first token came in time."""
    ttft = outcome.ttft_seconds
    return outcome.is_served and ttft is not None and ttft <= slo_seconds


def goodput(outcomes: Iterable[Outcome], slos: Slos, window: Window) -> float:
    """Output tokens per second that reached clients inside the window, of requests that met their SLO."""
    tokens = sum(tokens_inside(outcome, window) for outcome in outcomes if meets(outcome, slos[outcome.tier]))
    return tokens / window.seconds


def throughput(outcomes: Iterable[Outcome], window: Window) -> float:
    """Output tokens per second that reached clients inside the window, whatever they were worth."""
    return sum(tokens_inside(outcome, window) for outcome in outcomes) / window.seconds


def tokens_inside(outcome: Outcome, window: Window) -> float:
    """How many of its tokens came inside; those of one piece of the stream came evenly since the piece before."""
    inside, before, seen = 0.0, None, 0
    for moment, tokens in outcome.progress:
        if before is None or moment <= before:
            inside += (tokens - seen) * window.holds(moment)
        else:
            inside += (tokens - seen) * window.overlap(before, moment) / (moment - before)
        before, seen = moment, tokens
    return inside


def tenant_fairness(outcomes: Sequence[Outcome]) -> float:
    """Jain's index over the tenants of each tier, by requests served; the mean of the tiers, by requests served.

    By requests served, because a tier that got next to nothing has next to nothing to share. 1.0 for nothing.
    """
    indices = [_fairness([o for o in outcomes if o.tier == tier]) for tier in {o.tier for o in outcomes}]
    served = sum(weight for _, weight in indices)
    return sum(index * weight for index, weight in indices) / served if served else 1.0


def _fairness(outcomes: Sequence[Outcome]) -> tuple[float, int]:
    """The index of one tier, and how many requests it was served."""
    demands = Counter(outcome.tenant for outcome in outcomes)
    served = Counter(outcome.tenant for outcome in outcomes if outcome.is_served)
    return fairness(demands, {tenant: served[tenant] for tenant in demands}), served.total()


def refusal_times_ms(outcomes: Iterable[Outcome]) -> list[float]:
    """Real milliseconds each refusal took from sending the request, in order."""
    return sorted(outcome.answered_wall_ms for outcome in outcomes if outcome.ending is Ending.REFUSED)


def system_score(
    outcomes: Sequence[Outcome], slos: Slos, window: Window, *, utilisation: float, reference_tokens_per_s: float | None
) -> SystemScore:
    """The figures of a run.

    Args:
        outcomes: of all requests of the run, also those before and after the window.
        reference_tokens_per_s: the goodput the ratio is taken to; None for no ratio.
    """
    came = [outcome for outcome in outcomes if window.holds(outcome.due_seconds)]
    good = goodput(outcomes, slos, window)
    return SystemScore(
        tiers={tier: tier_score([o for o in came if o.tier == tier], slo) for tier, slo in slos.items()},
        goodput_tokens_per_s=good,
        goodput_ratio_to_1x=good / reference_tokens_per_s if reference_tokens_per_s else None,
        utilisation=utilisation,
        refusal_p99_ms=_rank(refusal_times_ms(came), 99),
        jain=tenant_fairness(came),
    )


def _rank(ordered: Sequence[float], percent: float) -> float | None:
    return nearest_rank(ordered, percent) if ordered else None
