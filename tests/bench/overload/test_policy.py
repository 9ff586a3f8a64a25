"""The benchmark's policy: true to the load and the cluster, on any clock."""

from __future__ import annotations

import hashlib

import pytest
import yaml

from bench.overload.__main__ import read_slos
from bench.overload.mix import MIX, api_key
from bench.overload.scaled_policy import scaled_policy
from bench.overload.simulated_engine import EngineShape
from bench.overload.stage import POLICY, REPLICAS
from bench.overload.systems import MODEL_CLUSTER
from headgate.policy.load import load_policy


def test_every_client_of_the_load_is_a_tenant_of_the_right_tier_with_its_key() -> None:
    policy = load_policy(POLICY.read_bytes(), str(POLICY))
    for tier, part in MIX.items():
        for tenant in part.tenants:
            assert policy.tenants[tenant].tier == tier
            assert policy.tenants_by_key[hashlib.sha256(api_key(tenant).encode()).hexdigest()] == tenant


def test_every_tier_of_the_load_promises_a_ttft_shorter_than_its_clients_wait() -> None:
    slos = read_slos(POLICY)
    assert slos.keys() == MIX.keys()
    assert all(slos[tier] < part.patience_seconds for tier, part in MIX.items())


def test_the_cluster_is_the_simulated_one() -> None:
    cluster = load_policy(POLICY.read_bytes(), str(POLICY)).clusters[MODEL_CLUSTER]
    assert sum(len(frontend.endpoints) for frontend in cluster.frontends.values()) == REPLICAS
    assert EngineShape().slots > 0


def test_durations_shrink_and_rates_grow_by_the_time_factor_and_nothing_else_changes() -> None:
    text = "{a: {max_wait: 2s, slo: {ttft: 600ms}, age: [1m, 1h]}, requests_per_minute: 10, max_body: 8MiB, n: 2}"
    assert yaml.safe_load(scaled_policy(text, 4.0)) == {
        "a": {"max_wait": "500.000ms", "slo": {"ttft": "150.000ms"}, "age": ["15000.000ms", "900000.000ms"]},
        "requests_per_minute": 40,
        "max_body": "8MiB",
        "n": 2,
    }


def test_the_scaled_policy_loads_and_keeps_its_proportions() -> None:
    scaled = load_policy(scaled_policy(POLICY.read_text(), 3.0).encode(), "scaled")
    slos = read_slos(POLICY)
    for name, tier in scaled.tiers.items():
        assert tier.ttft_slo_seconds == pytest.approx(slos[name] / 3.0, abs=1e-5)
