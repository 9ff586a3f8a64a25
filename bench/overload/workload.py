"""The offered load: trace requests at a chosen mean rate, each given a tier and a tenant. Same arguments, same load."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from bench.overload.mix import MIX, TierMix
from bench.overload.trace import TraceMissing, TraceRequest

STRETCH_REQUESTS = 6000
"""Every load is a sample of the same stretch of the trace, so that all loads have the same lengths."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrival:
    """One request to be sent; seconds are simulated and `due_seconds` counts from the start of the run.

    `answer_tokens` is what the model would say at length; `max_tokens`, which the client sends, cuts it.
    """

    number: int
    due_seconds: float
    tier: str
    tenant: str
    prompt_tokens: int
    answer_tokens: int
    max_tokens: int
    patience_seconds: float


def build(
    trace: Sequence[TraceRequest],
    rate_per_second: float,
    seconds: float,
    seed: int,
    mix: Mapping[str, TierMix] = MIX,
) -> list[Arrival]:
    """As many requests as the rate asks for: every n-th of the trace's first 6,000, their gaps stretched to fit.

    Stretching keeps the trace's bursts and lulls in proportion, whatever the rate.

    Raises:
        TraceMissing: the trace has fewer requests than that.
    """
    count = round(rate_per_second * seconds)
    whole = max(STRETCH_REQUESTS, count)
    if not count or whole >= len(trace):
        raise TraceMissing(f"{count} of the first {whole} requests are wanted; the trace has {len(trace)}")
    stretch = seconds / (trace[whole].at_seconds - trace[0].at_seconds)
    people = _people(mix)
    drawn = random.Random(seed).choices(list(people), weights=list(people.values()), k=count)
    sampled = (trace[number * whole // count] for number in range(count))
    return [
        _arrival(number, request, request.at_seconds * stretch, who, mix)
        for number, (request, who) in enumerate(zip(sampled, drawn, strict=True))
    ]


def _people(mix: Mapping[str, TierMix]) -> dict[tuple[str, str], float]:
    """(tier, tenant) -> share of all requests."""
    return {
        (tier, tenant): part.share * weight / sum(part.tenants.values())
        for tier, part in mix.items()
        for tenant, weight in part.tenants.items()
    }


def _arrival(
    number: int, request: TraceRequest, due_seconds: float, who: tuple[str, str], mix: Mapping[str, TierMix]
) -> Arrival:
    tier, tenant = who
    return Arrival(
        number=number,
        due_seconds=due_seconds,
        tier=tier,
        tenant=tenant,
        prompt_tokens=request.prompt_tokens,
        answer_tokens=request.answer_tokens,
        max_tokens=mix[tier].max_tokens,
        patience_seconds=mix[tier].patience_seconds,
    )
