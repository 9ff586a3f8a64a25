"""Envoy alone is the rendered Envoy without Headgate, and nothing else."""

from __future__ import annotations

import copy
from typing import Any

from bench.latency.baseline import without_headgate
from headgate.policy.load import load_policy
from headgate.settings import DEFAULT_POLICY
from headgate_cli.render.envoy import bootstrap
from headgate_cli.render.settings import EnvoySettings


def rendered() -> dict[str, Any]:
    return bootstrap(load_policy(DEFAULT_POLICY.read_bytes(), "default.yaml"), EnvoySettings())


def manager(document: dict[str, Any]) -> dict[str, Any]:
    listener = document["static_resources"]["listeners"][0]
    config: dict[str, Any] = listener["filter_chains"][0]["filters"][0]["typed_config"]
    return config


def test_nothing_of_headgate_is_left_in_the_chain_the_routes_or_the_clusters() -> None:
    alone = without_headgate(rendered(), "standard")
    assert [item["name"] for item in manager(alone)["http_filters"]] == ["envoy.filters.http.router"]
    assert [cluster["name"] for cluster in alone["static_resources"]["clusters"]] == ["standard"]
    assert not any(word in str(alone) for word in ("x-headgate", "x-model-cluster", "headgate_", "access_log"))


def test_listener_connection_manager_and_model_cluster_stay_as_rendered() -> None:
    full, alone = rendered(), without_headgate(rendered(), "standard")
    gone = {"http_filters", "route_config", "access_log", "early_header_mutation_extensions", "local_reply_config"}
    assert {k: v for k, v in manager(alone).items() if k not in gone} == {
        k: v for k, v in manager(full).items() if k not in gone
    }
    standard = next(cluster for cluster in full["static_resources"]["clusters"] if cluster["name"] == "standard")
    assert alone["static_resources"]["clusters"] == [standard]


def test_every_request_goes_straight_to_the_model_cluster_under_the_same_timeouts_and_retries() -> None:
    alone = without_headgate(rendered(), "standard")
    [route] = manager(alone)["route_config"]["virtual_hosts"][0]["routes"]
    decided = manager(rendered())["route_config"]["virtual_hosts"][0]["routes"][0]
    assert route["match"] == {"prefix": "/"}
    assert route["route"].pop("cluster") == "standard"
    assert route["route"] == {name: value for name, value in decided["route"].items() if name != "cluster_header"}


def test_the_rendered_configuration_itself_is_left_alone() -> None:
    full = rendered()
    before = copy.deepcopy(full)
    without_headgate(full, "standard")
    assert full == before
