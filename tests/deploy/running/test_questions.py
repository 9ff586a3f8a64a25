"""The questions an operator has, answered by PromQL after a run of the demo, and checked against who else counted."""

from __future__ import annotations

from typing import Any

import pytest

from headgate.policy.load import load_policy
from headgate_cli.demo.cases import CASES


def test_the_demo_itself_went_well(observed: Any) -> None:
    assert observed.failures == []


def test_tokens_agree_exactly_with_what_the_servers_counted(observed: Any) -> None:
    whole = observed.whole

    assert whole["headgate", "output"] > 300
    assert whole["headgate", "prompt"] == whole["servers", "prompt"]
    assert whole["headgate", "output"] == whole["servers", "output"]
    assert whole["headgate", "estimated"] == 0


def test_what_is_the_p95_time_to_the_first_token_of_each_tier(observed: Any) -> None:
    p95 = observed.prometheus.values("headgate:time_to_first_token_seconds:p95_5m", "tier")
    owed = observed.prometheus.values("headgate_slo_ttft_seconds", "tier")

    assert {"premium", "interactive", "best_effort"} <= p95.keys()
    assert all(0.0 < seconds < 10.0 for seconds in p95.values())
    assert (owed["premium"], owed["interactive"]) == (0.5, 1.0)


def test_how_many_waited_and_why(observed: Any) -> None:
    waited = observed.prometheus.values('sum by (tier) (headgate_decisions_total{verdict="QUEUE"})', "tier")
    waits = observed.prometheus.values("sum by (tier) (headgate_queue_wait_seconds_count)", "tier")
    reasons = observed.prometheus.values('sum by (reason) (headgate_decisions_total{verdict="QUEUE"})', "reason")

    assert waited["premium"] == waits["premium"] > 0
    assert sum(reasons.values()) == sum(waited.values())
    assert observed.prometheus.total("headgate_queue_depth") == 0.0, "and nobody waits any more"


def test_which_tenants_use_four_fifths_of_the_fleet(observed: Any) -> None:
    shares = observed.prometheus.values("headgate:tenant_tokens:share5m", "tenant")
    tokens = observed.prometheus.values('sum by (tenant) (headgate_tokens_total{kind!="cached"})', "tenant")

    assert sum(shares.values()) == pytest.approx(1.0)
    largest, together = [], 0.0
    for tenant, share in sorted(shares.items(), key=lambda entry: -entry[1]):
        if together < 0.8:
            largest.append(tenant)
            together += share
    assert 1 <= len(largest) < len(tokens)
    # The demo's long prompt is most of what was used.
    assert largest[0] == max(tokens, key=lambda tenant: tokens[tenant]) == "acme"


def test_what_each_tenant_costs(observed: Any) -> None:
    cost = observed.prometheus.values("sum by (tenant) (headgate_cost_dollars_total)", "tenant")
    tokens = observed.prometheus.values('sum by (tenant) (headgate_tokens_total{kind!="cached"})', "tenant")
    policy = load_policy(observed.stack.policy_path.read_bytes(), "policy.yaml")
    prices = [price for c in policy.clusters.values() for price in (c.price.prompt, c.price.output) if price]

    assert {"acme", "globex", "hobby"} <= cost.keys()
    for tenant, dollars in cost.items():
        if tokens[tenant]:
            assert min(prices) <= dollars / tokens[tenant] * 1e6 <= max(prices)


def test_the_policy_does_what_was_decided(observed: Any) -> None:
    ask = observed.prometheus
    in_force = load_policy(observed.stack.policy_path.read_bytes(), "policy.yaml").version
    verdicts = ask.values("sum by (verdict) (headgate_decisions_total)", "verdict")

    assert ask.values("headgate_policy_version", "version") == {in_force: 1.0}
    assert ask.total("headgate_policy_reload_failed") == 0.0
    assert {"ADMIT", "QUEUE", "DEGRADE", "REJECT"} <= verdicts.keys()
    # Everything that was decided has ended, once.
    assert ask.total("headgate_requests_total") == sum(verdicts.values())
    refused = ask.total('headgate_requests_total{outcome="refused"}')
    limited = ask.total('headgate_rate_limit_decisions_total{domain="headgate", code="OVER_LIMIT"}')
    assert refused == verdicts["REJECT"] + limited
    assert len(CASES) > 0
    assert ask.total("headgate_leases") == 0.0


def test_the_servers_and_the_sidecar_agree_on_who_runs(observed: Any) -> None:
    ask = observed.prometheus

    assert ask.values("headgate_server_ready", "cluster") == dict.fromkeys(
        ("best", "long-context", "fast", "sentiment"), 1.0
    )
    assert ask.values("headgate_server_slots", "cluster")["standard"] == 16.0
    assert max(ask.values("headgate_signal_age_seconds", "cluster").values()) < 5.0
