"""Cluster names that Envoy's own validation lets pass."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest

from headgate.policy.load import load_policy
from headgate.policy.model import Policy
from headgate.settings import DEFAULT_POLICY
from headgate_cli.render.crossref import undefined_clusters
from headgate_cli.render.envoy import bootstrap
from headgate_cli.render.settings import EnvoySettings
from headgate_cli.render.yaml_text import dump


@pytest.fixture(scope="module")
def policy() -> Policy:
    return load_policy(DEFAULT_POLICY.read_bytes(), "default.yaml")


@pytest.fixture(scope="module")
def good(policy: Policy) -> dict[str, Any]:
    return bootstrap(policy, EnvoySettings())


@pytest.fixture
def document(good: dict[str, Any]) -> dict[str, Any]:
    return deepcopy(good)


def _clusters(document: dict[str, Any]) -> list[dict[str, Any]]:
    clusters: list[dict[str, Any]] = document["static_resources"]["clusters"]
    return clusters


def test_a_rendered_configuration_has_no_problem(good: dict[str, Any], policy: Policy) -> None:
    assert undefined_clusters(good, policy, "envoy.yaml") == []


@pytest.mark.parametrize(
    ("missing", "path"),
    [
        ("headgate_extproc", "http_filters[0].typed_config.grpc_service.envoy_grpc.cluster_name"),
        ("headgate_ratelimit", "http_filters[1].typed_config.rate_limit_service.grpc_service.envoy_grpc.cluster_name"),
        ("headgate_accesslog", "access_log[0].typed_config.common_config.grpc_service.envoy_grpc.cluster_name"),
        ("long-context", "clusters.long-context (x-model-cluster)"),
        ("fast.openai", "clusters.fast (x-model-cluster)"),
    ],
)
def test_a_cluster_that_is_used_and_not_defined_is_found(
    document: dict[str, Any],
    policy: Policy,
    binary: Path,
    validate: Callable[[Path, Path], str],
    tmp_path: Path,
    missing: str,
    path: str,
) -> None:
    _clusters(document)[:] = [cluster for cluster in _clusters(document) if cluster["name"] != missing]

    (problem,) = undefined_clusters(document, policy, "envoy.yaml")

    assert problem.path.endswith(path)
    assert problem.message == f"no cluster named '{missing}' is defined"
    configuration = tmp_path / "envoy.yaml"
    configuration.write_text(dump(document))
    assert validate(binary, configuration) == "", "Envoy finds it by itself now: the check has become superfluous"


def test_a_route_to_nowhere_is_found(document: dict[str, Any], policy: Policy) -> None:
    manager = document["static_resources"]["listeners"][0]["filter_chains"][0]["filters"][0]["typed_config"]
    manager["route_config"]["virtual_hosts"][0]["routes"][1]["route"] = {"cluster": "typo"}

    (problem,) = undefined_clusters(document, policy, "envoy.yaml")

    assert problem.path.endswith("routes[1].route.cluster")


def test_a_cluster_defined_twice_is_found(document: dict[str, Any], policy: Policy) -> None:
    _clusters(document).append(_clusters(document)[0])

    (problem,) = undefined_clusters(document, policy, "envoy.yaml")

    assert str(problem) == "envoy.yaml static_resources.clusters: 'best' is defined twice"


def test_a_configuration_without_clusters_lacks_all_of_them(policy: Policy) -> None:
    assert len(undefined_clusters({}, policy, "envoy.yaml")) == 10
