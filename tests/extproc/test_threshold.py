"""Where an exact count is worth its time: near a number that decides something, and nowhere else."""

from __future__ import annotations

from dataclasses import replace

import pytest

from extproc.admission import idle_room_tokens
from extproc.calibration import Correction
from extproc.identity import Identity
from extproc.threshold import is_decisive, thresholds
from headgate.policy.model import Policy, TenantLimits

NARROW = Correction(factor=1.0, low=0.9, high=1.1)


@pytest.mark.parametrize(
    ("prompt_tokens", "expected"), [(7200, False), (7280, True), (8000, True), (8880, True), (8900, False)]
)
def test_a_count_is_decisive_inside_the_band_of_the_estimate(prompt_tokens: int, expected: bool) -> None:
    assert is_decisive(prompt_tokens, NARROW, [8000]) is expected


def test_without_thresholds_nothing_is_decisive() -> None:
    assert not is_decisive(8000, Correction(), [])


def test_rules_room_and_budget_are_what_matters(policy: Policy) -> None:
    [route, *others] = policy.models["assistant"].routes
    by_size = replace(route, when=policy.rules.compile("prompt_tokens > 8000"))
    model = replace(policy.models["assistant"], routes=(by_size, *others))
    limited = replace(policy.tenants["globex"], limits=TenantLimits(tokens_per_minute=500_000))
    room = idle_room_tokens(policy, Identity(limited, policy.tiers["interactive"]), policy.clusters["best"])

    sizes = set(thresholds(policy, Identity(limited, policy.tiers["interactive"]), model, 1000))

    assert room is not None
    assert sizes == {8000, room - 1000, 499_000}
