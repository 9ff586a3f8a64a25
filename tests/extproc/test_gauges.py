"""The limits of the policy in force, beside what is in use."""

from __future__ import annotations

from extproc.gauges import watch_room
from headgate.metrics import Metrics
from headgate.policy.load import load_policy
from headgate.store.memory import MemoryStore

POLICY = load_policy(
    b"""
apiVersion: headgate/v1
identity: [{anonymous: {tenant: acme}}]
tenants: {acme: {tier: premium}}
tiers:
  premium: {priority: 0, concurrency: {tier: 64}, on_overload: [reject]}
  batch: {priority: 1, on_overload: [reject]}
models: {assistant: {routes: [{cluster: best}]}}
clusters:
  best: {protocol: openai, model: m, endpoints: ["a:1"], capacity: {requests: 32, tokens: 4000}}
  fast: {protocol: openai, model: m, endpoints: ["a:2"]}
""",
    "policy.yaml",
)


def test_limits_are_shown_where_there_are_any() -> None:
    metrics = Metrics()
    watch_room(metrics, lambda: POLICY, MemoryStore(lambda: 0.0))

    value = metrics.registry.get_sample_value
    limits = {
        name: value("headgate_lease_limit", {"scope": scope, "name": name})
        for scope, name in (
            ("tier_concurrency", "premium"),
            ("tier_concurrency", "batch"),
            ("cluster_concurrency", "best"),
            ("cluster_concurrency", "fast"),
        )
    }
    assert limits == {"premium": 64.0, "batch": None, "best": 32.0, "fast": None}
    assert value("headgate_reserved_tokens", {"cluster": "best"}) == 0.0
    assert value("headgate_reserved_tokens_limit", {"cluster": "best"}) == 4000.0
    assert value("headgate_reserved_tokens_limit", {"cluster": "fast"}) is None
