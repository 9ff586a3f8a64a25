"""The last five minutes of finished requests, in bounded memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from headgate.live.window import OTHER, WINDOW_SECONDS, RecentRequests, Usage
from headgate.policy.load import load_policy
from headgate.record import RequestRecord
from headgate.settings import DEFAULT_POLICY
from tests import records

POLICY = load_policy(DEFAULT_POLICY.read_bytes(), "default.yaml")
"""A million prompt tokens on `best` cost half a dollar, of output one and a half."""


def finished(**fields: Any) -> RequestRecord:
    return records.finished(**{"prompt_tokens": 30, "output_tokens": 70, "estimated_prompt_tokens": 40} | fields)


class Window:
    def __init__(self) -> None:
        self.now = 1000.0
        self.requests = RecentRequests(lambda: self.now, lambda: POLICY)


@pytest.fixture
def window() -> Window:
    return Window()


def test_tokens_are_what_was_reported_else_what_was_estimated(window: Window) -> None:
    window.requests.note(finished())
    window.requests.note(finished(prompt_tokens=None, output_tokens=None, estimated_output_tokens=25))

    ((tenant, usage),) = window.requests.usage().items()
    assert (tenant, usage.requests, usage.tokens) == ("acme", 2, 165)
    assert usage.cost_dollars == pytest.approx((70 * 0.5 + 95 * 1.5) / 1e6)


def test_a_refused_request_uses_nothing(window: Window) -> None:
    window.requests.note(finished(verdict="REJECT", status=429, prompt_tokens=None, output_tokens=None))

    assert window.requests.usage() == {"acme": Usage(requests=1, tokens=0, cost_dollars=0.0)}


def test_the_heaviest_tenant_comes_first(window: Window) -> None:
    for tenant, output in (("small", 1), ("large", 1000), ("middle", 100)):
        window.requests.note(finished(tenant=tenant, output_tokens=output))

    assert list(window.requests.usage()) == ["large", "middle", "small"]


def test_what_is_older_than_the_window_is_forgotten(window: Window) -> None:
    window.requests.note(finished(tenant="early"))
    window.now += WINDOW_SECONDS - 1.0
    window.requests.note(finished(tenant="late"))
    both = list(window.requests.usage())
    window.now += 1.0

    assert both == ["early", "late"]
    assert list(window.requests.usage()) == ["late"]
    assert window.requests.first_token_seconds("premium", 0.95) == 0.25


@pytest.mark.parametrize(("share", "seconds"), [(0.0, 0.01), (0.5, 0.51), (0.95, 0.96), (1.0, 1.0)])
def test_the_time_to_the_first_token_by_tier(share: float, seconds: float, window: Window) -> None:
    for hundredths in range(100, 0, -1):
        window.requests.note(finished(first_byte_seconds=hundredths / 100))
    window.requests.note(finished(tier="batch", first_byte_seconds=9.0))
    window.requests.note(finished(status=503, first_byte_seconds=8.0))
    window.requests.note(finished(is_stream=False, first_byte_seconds=7.0))

    assert window.requests.first_token_seconds("premium", share) == pytest.approx(seconds)
    assert window.requests.first_token_seconds("async", share) is None


def test_memory_is_bounded_whatever_comes(window: Window, deep_size: Callable[[object], int]) -> None:
    def fill(times: int) -> int:
        for number in range(times):
            window.requests.note(finished(tenant=f"tenant-{number}", first_byte_seconds=number * 0.001))
        return deep_size(window.requests)

    once, again = fill(3000), fill(3000)

    assert once == again
    assert window.requests.usage()[OTHER].requests > 0


@pytest.fixture
def deep_size() -> Callable[[object], int]:
    """How many tenants and times are held, over all slices."""

    def size(requests: object) -> int:
        assert isinstance(requests, RecentRequests)
        return sum(len(s.tenants) + sum(map(len, s.first_tokens.values())) for s in requests._slices)

    return size
