"""How much prompt lies before a request, and who has to wait for it."""

from __future__ import annotations

from typing import Any

import pytest

from extproc.prefill import PrefillBacklog
from headgate.store import LeaseRequest


def prompt(tokens: int = 1000, **fields: Any) -> LeaseRequest:
    """For a cluster that computes a thousand tokens a second."""
    known: dict[str, Any] = {
        "tenant": "acme",
        "tier": "batch",
        "cluster": "best",
        "prompt_tokens": tokens,
        "prompt_tokens_per_second": 1000.0,
        "max_backlog_seconds": 0.5,
    }
    return LeaseRequest(**(known | fields))


def test_nobody_waits_for_an_idle_cluster_however_long_the_prompt() -> None:
    assert PrefillBacklog().excess_seconds(prompt(1_000_000), 5.0) == 0.0


def test_whoever_comes_behind_prompts_waits_until_few_enough_are_left() -> None:
    backlog = PrefillBacklog()
    backlog.sent(prompt(1000), 5.0)
    backlog.sent(prompt(2000), 5.5)

    assert backlog.excess_seconds(prompt(1), 5.5) == pytest.approx(2.0)
    assert backlog.excess_seconds(prompt(100_000), 5.5) == pytest.approx(2.0)
    assert backlog.excess_seconds(prompt(), 7.0) == pytest.approx(0.5)
    assert backlog.excess_seconds(prompt(), 7.5) == 0.0
    assert backlog.excess_seconds(prompt(), 100.0) == 0.0


def test_idle_time_is_not_saved_up() -> None:
    backlog = PrefillBacklog()
    backlog.sent(prompt(1000), 5.0)
    backlog.sent(prompt(1000), 100.0)

    assert backlog.excess_seconds(prompt(), 100.0) == pytest.approx(0.5)


def test_a_tier_with_the_tightest_promise_fills_the_backlog_and_never_waits_for_it() -> None:
    backlog = PrefillBacklog()
    urgent = prompt(5000, max_backlog_seconds=None)
    backlog.sent(urgent, 5.0)

    assert backlog.excess_seconds(urgent, 5.0) == 0.0
    assert backlog.excess_seconds(prompt(), 5.0) == pytest.approx(4.5)


def test_clusters_and_unknown_speeds_hold_nobody_back() -> None:
    backlog = PrefillBacklog()
    backlog.sent(prompt(5000), 5.0)
    backlog.sent(prompt(5000, cluster="fast", prompt_tokens_per_second=None), 5.0)
    backlog.sent(prompt(5000, cluster=None), 5.0)

    assert backlog.excess_seconds(prompt(cluster="fast"), 5.0) == 0.0
    assert backlog.excess_seconds(prompt(cluster=None), 5.0) == 0.0
