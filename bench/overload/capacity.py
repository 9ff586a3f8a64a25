"""How much the cluster can carry: what "1x" means, measured on the simulated engines in virtual time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from bench.overload.outcome import Outcome, Window
from bench.overload.plan import Plan
from bench.overload.replay import replay
from bench.overload.score import Slos, goodput, meets
from bench.overload.stage import REPLICAS
from bench.overload.trace import TraceRequest
from bench.overload.workload import build

GOOD_SHARE = 0.95
_HIGHEST_RATE = 64.0
_PRECISION = 0.02


@dataclass(frozen=True, slots=True, kw_only=True)
class Capacity:
    """1x: requests per simulated second, and the goodput the engines give at that rate with no gateway at all."""

    rate_per_second: float
    goodput_tokens_per_s: float


def find_capacity(trace: Sequence[TraceRequest], plan: Plan, slos: Slos) -> Capacity:
    """The highest rate at which 95 % of all requests meet the tightest SLO, by bisection.

    The tightest, because the cluster knows no tiers: it can promise nobody more than it gives everybody.
    """
    tightest = min(slos.values())
    low, high = 0.0, _HIGHEST_RATE
    while high - low > _PRECISION:
        rate = (low + high) / 2
        low, high = (rate, high) if _is_carried(_replayed(trace, plan, rate), plan.window, tightest) else (low, rate)
    good = goodput(_replayed(trace, plan, low), slos, plan.window)
    return Capacity(rate_per_second=low, goodput_tokens_per_s=good)


def _replayed(trace: Sequence[TraceRequest], plan: Plan, rate: float) -> list[Outcome]:
    return replay(build(trace, rate, plan.total_seconds, plan.seed), plan.shape, REPLICAS, plan.total_seconds)


def _is_carried(outcomes: Sequence[Outcome], window: Window, slo_seconds: float) -> bool:
    came = [outcome for outcome in outcomes if window.holds(outcome.due_seconds)]
    return sum(meets(outcome, slo_seconds) for outcome in came) >= GOOD_SHARE * len(came)
