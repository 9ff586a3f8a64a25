"""Who asks: five tiers with several tenants each, how much each asks for, and how long its clients wait.

Tenants and their tiers are those of `policy.yaml`; their keys are `bench-NAME`. All seconds are simulated.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class TierMix:
    """One tier's part of the offered load.

    Attributes:
        share: of all requests, 0.0 to 1.0.
        tenants: name -> weight of its demand inside the tier. Unequal, so that fairness shows.
        patience_seconds: a client that has no first token by then hangs up; none asks again.
        max_tokens: what its clients send as the output limit; answers of the trace are shorter as a rule.
    """

    share: float
    tenants: Mapping[str, float]
    patience_seconds: float
    max_tokens: int


MIX: Mapping[str, TierMix] = {
    "premium": TierMix(
        share=0.10, tenants={"acme": 1, "initech": 1, "umbrella": 2}, patience_seconds=15, max_tokens=1024
    ),
    "interactive": TierMix(
        share=0.25, tenants={"globex": 1, "hooli": 2, "piper": 3, "soylent": 6}, patience_seconds=15, max_tokens=512
    ),
    "async": TierMix(
        share=0.20, tenants={"tyrell": 1, "wayland": 2, "massive": 5}, patience_seconds=60, max_tokens=1024
    ),
    "batch": TierMix(
        share=0.30, tenants={"stark": 1, "wayne": 2, "oscorp": 3, "lexcorp": 6}, patience_seconds=120, max_tokens=1024
    ),
    "best_effort": TierMix(
        share=0.15, tenants={"hobby": 1, "student": 2, "scraper": 7}, patience_seconds=20, max_tokens=512
    ),
}


def api_key(tenant: str) -> str:
    """The key its clients send; the policy knows the sha256."""
    return f"bench-{tenant}"
