"""What a request costs."""

from __future__ import annotations

from typing import Any

import pytest

from headgate.cost import cost_dollars
from headgate.policy.model import Price
from headgate.record import RequestRecord


def finished(**tokens: int | None) -> RequestRecord:
    texts = dict.fromkeys(
        ("request_id", "tenant", "tier", "model", "cluster", "protocol", "operation", "verdict", "reason", "details"),
        "",
    )
    known: dict[str, Any] = dict.fromkeys(
        (
            "status", "duration_seconds", "first_byte_seconds", "queue_wait_seconds", "request_bytes", "response_bytes",
            "attempts", "prompt_tokens", "output_tokens", "cached_tokens", "estimated_prompt_tokens", "charged_tokens",
        ),
        0,
    )  # fmt: skip
    return RequestRecord(**texts | known | tokens)


def test_a_million_tokens_cost_the_price() -> None:
    record = finished(prompt_tokens=1_000_000, output_tokens=2_000_000)

    assert cost_dollars(record, Price(prompt=0.5, output=1.5)) == 3.5


@pytest.mark.parametrize(("cached_price", "dollars"), [(0.1, 0.28), (None, 1.0), (0.0, 0.2)])
def test_tokens_found_in_the_cache_have_a_price_of_their_own_or_the_prompts(
    cached_price: float | None, dollars: float
) -> None:
    record = finished(prompt_tokens=1_000_000, cached_tokens=800_000, output_tokens=0)

    assert cost_dollars(record, Price(prompt=1.0, cached_prompt=cached_price)) == pytest.approx(dollars)


def test_more_cached_tokens_than_prompt_tokens_earn_nobody_money() -> None:
    record = finished(prompt_tokens=10, cached_tokens=1000, output_tokens=0)

    assert cost_dollars(record, Price(prompt=1.0, cached_prompt=0.0)) == 0.0


def test_what_nobody_reported_costs_its_estimate() -> None:
    record = finished(prompt_tokens=None, output_tokens=None, estimated_prompt_tokens=100, estimated_output_tokens=50)

    assert cost_dollars(record, Price(prompt=1.0, output=2.0)) == pytest.approx(200 / 1e6)
