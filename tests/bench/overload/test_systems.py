"""The four Envoy configurations: a real Envoy takes each, and they differ in what they are about."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest

from bench.overload.stage import POLICY
from bench.overload.systems import MODEL_CLUSTER, System, configuration
from headgate.policy.load import load_policy
from headgate_cli.render.settings import EnvoySettings
from headgate_cli.render.yaml_text import dump
from headgate_cli.stack import envoy_binary


def rendered(system: System) -> dict[str, Any]:
    policy = load_policy(POLICY.read_bytes(), str(POLICY))
    return configuration(system, policy, EnvoySettings(), slots=96, time_factor=3.0)


def filter_names(document: dict[str, Any]) -> list[str]:
    manager = document["static_resources"]["listeners"][0]["filter_chains"][0]["filters"][0]["typed_config"]
    return [item["name"].rpartition(".")[2] for item in manager["http_filters"]]


@pytest.mark.parametrize("system", System)
def test_envoy_accepts_the_configuration(system: System, tmp_path: Path) -> None:
    path = tmp_path / "envoy.yaml"
    path.write_text(dump(rendered(system)))
    command = [str(envoy_binary()), "--mode", "validate", "--disable-hot-restart", "-c", str(path)]
    checked = subprocess.run(command, capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stderr


def test_only_headgate_asks_headgate() -> None:
    assert "ext_proc" in filter_names(rendered(System.HEADGATE))
    assert filter_names(rendered(System.LEAST_REQUEST)) == ["router"]
    assert filter_names(rendered(System.CIRCUIT_BREAKERS)) == ["router"]
    assert filter_names(rendered(System.ADAPTIVE_CONCURRENCY)) == ["adaptive_concurrency", "router"]


def test_every_system_spreads_over_the_same_endpoints_by_least_request() -> None:
    def model_cluster(system: System) -> dict[str, Any]:
        clusters = rendered(system)["static_resources"]["clusters"]
        return next(cluster for cluster in clusters if cluster["name"] == MODEL_CLUSTER)

    seen = [(c["lb_policy"], c["load_assignment"]) for c in map(model_cluster, System)]
    assert all(one == seen[0] for one in seen)


def test_the_circuit_breakers_let_as_many_through_as_the_cluster_has_slots() -> None:
    (cluster,) = rendered(System.CIRCUIT_BREAKERS)["static_resources"]["clusters"]
    (threshold,) = cluster["circuit_breakers"]["thresholds"]
    assert (threshold["max_requests"], threshold["max_connections"]) == (96, 96)
