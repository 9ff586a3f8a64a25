"""What the figures do not say: why. Refusals by reason, where requests waited, who used the machine."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from bench.overload.cell import Cell
from bench.overload.outcome import Outcome, Window
from bench.overload.record import SequenceRecord
from bench.overload.score import refusal_times_ms, throughput
from bench.percentiles import nearest_rank

WAITED = ("queue_timeout", "client_deadline")
"""The reasons of requests that were told no only when their patience was over."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Times:
    """How long something took, half and 99 of a hundred times."""

    count: int
    p50: float
    p99: float

    @classmethod
    def of(cls, values: Iterable[float]) -> Times | None:
        """None for no values."""
        ordered = sorted(values)
        if not ordered:
            return None
        return cls(count=len(ordered), p50=nearest_rank(ordered, 50), p99=nearest_rank(ordered, 99))


@dataclass(frozen=True, slots=True, kw_only=True)
class TierDetails:
    """One tier, the requests that came in the window; simulated seconds.

    Attributes:
        before_engine_s: from due to arriving at a replica: the gateway's queue, and what the machine added.
        engine_queue_s: waiting for a slot inside the replica, where priorities are not known.
        prefill_s: from the slot to the first token.
    """

    offered: int
    endings: dict[str, int]
    before_engine_s: Times | None
    engine_queue_s: Times | None
    prefill_s: Times | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Details:
    """One cell.

    Attributes:
        refusals_ms: reason -> real milliseconds from request to refusal.
        refused_on_arrival_ms: the same of all that did not first wait out their queue.
        served_by_tenant: tenant -> (requests that came, requests served).
        late_ms: how late the clients sent, real milliseconds: above a few, the machine was too busy.
    """

    tiers: dict[str, TierDetails]
    throughput_tokens_per_s: float
    refusals_ms: dict[str, Times | None]
    refused_on_arrival_ms: Times | None
    served_by_tenant: dict[str, tuple[int, int]]
    max_concurrency: list[int]
    tokens_served: int
    tokens_wasted: int
    late_ms: Times | None
    cpu_cores: dict[str, float]


def details(cell: Cell, window: Window) -> Details:
    """All of it."""
    came = [outcome for outcome in cell.outcomes if window.holds(outcome.due_seconds)]
    seen = {sequence.number: sequence for record in cell.records for sequence in record.sequences}
    by_tier: defaultdict[str, list[Outcome]] = defaultdict(list)
    by_reason: defaultdict[str, list[Outcome]] = defaultdict(list)
    for outcome in came:
        by_tier[outcome.tier].append(outcome)
        by_reason[outcome.reason].append(outcome)
    received = sum(outcome.answer_tokens for outcome in cell.outcomes if outcome.is_served)
    served = sum(record.tokens_served for record in cell.records)
    return Details(
        tiers={tier: _tier(outcomes, seen) for tier, outcomes in by_tier.items()},
        throughput_tokens_per_s=throughput(cell.outcomes, window),
        refusals_ms={reason: Times.of(refusal_times_ms(items)) for reason, items in by_reason.items() if reason},
        refused_on_arrival_ms=Times.of(refusal_times_ms(o for o in came if o.reason not in WAITED)),
        served_by_tenant=_tenants(came),
        max_concurrency=[record.max_concurrency for record in cell.records],
        tokens_served=served,
        tokens_wasted=max(0, served - received),
        late_ms=Times.of(outcome.late_wall_ms for outcome in came),
        cpu_cores=cell.cpu_cores,
    )


def _tier(outcomes: Sequence[Outcome], seen: dict[int, SequenceRecord]) -> TierDetails:
    pairs = [(outcome, seen[outcome.number]) for outcome in outcomes if outcome.number in seen]
    started = [sequence for _, sequence in pairs if sequence.admitted_at is not None]
    return TierDetails(
        offered=len(outcomes),
        endings=dict(Counter(outcome.ending.value for outcome in outcomes)),
        before_engine_s=Times.of(sequence.arrived_at - outcome.due_seconds for outcome, sequence in pairs),
        engine_queue_s=Times.of((s.admitted_at or 0.0) - s.arrived_at for s in started),
        prefill_s=Times.of(s.first_token_at - (s.admitted_at or 0.0) for s in started if s.first_token_at is not None),
    )


def _tenants(outcomes: Sequence[Outcome]) -> dict[str, tuple[int, int]]:
    came = Counter(outcome.tenant for outcome in outcomes)
    served = Counter(outcome.tenant for outcome in outcomes if outcome.is_served)
    return {tenant: (count, served[tenant]) for tenant, count in sorted(came.items())}
