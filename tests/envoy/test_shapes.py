"""Policies of any shape render to something Envoy accepts, with the limits where they belong."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from headgate.policy.load import load_policy
from headgate.policy.model import Policy
from headgate_cli.render.crossref import undefined_clusters
from headgate_cli.render.envoy import bootstrap, ratelimit_parts
from headgate_cli.render.settings import EnvoySettings
from headgate_cli.render.yaml_text import dump

ENDPOINTS = ["127.0.0.1:8000", "10.1.2.3:1", "[::1]:8000", "triton:8000", "triton.svc.cluster.local:65535"]
SERVICES = ["127.0.0.1:9002", "unix:/run/headgate.sock", "headgate:9002", "[::1]:9002"]

names = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_-]{0,20}", fullmatch=True)
headers = st.from_regex(r"x-[a-z0-9-]{1,20}", fullmatch=True)
endpoints = st.lists(st.sampled_from(ENDPOINTS), min_size=1, max_size=3, unique=True)
identities = st.lists(
    st.builds(lambda header: {"jwt": {"payload_header": header, "tenant_claim": "org"}}, headers)
    | st.builds(lambda header: {"api_key": {"header": header}}, headers),
    max_size=3,
)


@st.composite
def clusters(draw: st.DrawFn) -> dict[str, Any]:
    def frontend(protocol: str) -> dict[str, Any]:
        described = {"protocol": protocol, "model": "m", "endpoints": draw(endpoints)}
        has_grpc = protocol == "triton" and draw(st.booleans())
        return described | {"grpc_endpoints": draw(endpoints)} if has_grpc else described

    protocols = draw(st.lists(st.sampled_from(["openai", "triton"]), min_size=1, unique=True))
    affinity = draw(st.sampled_from(["off", "session", "prefix"]))
    return {"frontends": [frontend(protocol) for protocol in protocols], "affinity": affinity}


@st.composite
def policies(draw: st.DrawFn) -> Policy:
    pools = draw(st.dictionaries(names, clusters(), min_size=1, max_size=3))
    tier: dict[str, Any] = {
        "priority": 0,
        "on_overload": ["reject"],
        "max_body": draw(st.integers(1024, 256 * 1024 * 1024)),
    }
    if wait := draw(st.none() | st.integers(1, 3_000_000)):
        tier |= {"queue": {"max_wait": f"{wait}ms", "max_depth": 1}, "on_overload": ["queue", "reject"]}
    document = {
        "apiVersion": "headgate/v1",
        "identity": [*draw(identities), {"anonymous": {"tenant": "public"}}],
        "tenants": {"public": {"tier": "only"}},
        "tiers": {"only": tier},
        "models": {"m": {"routes": [{"cluster": next(iter(pools))}]}},
        "clusters": pools,
        "on_store_failure": draw(st.sampled_from(["open", "closed", "local"])),
    }
    return load_policy(yaml.safe_dump(document).encode(), "policy.yaml")


@given(policy=policies(), extproc=st.sampled_from(SERVICES), ratelimit=st.sampled_from(SERVICES))
@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
def test_envoy_accepts_any_policy(
    binary: Path,
    validate: Callable[[Path, Path], str],
    tmp_path: Path,
    policy: Policy,
    extproc: str,
    ratelimit: str,
) -> None:
    document = bootstrap(policy, EnvoySettings(extproc=extproc, ratelimit=ratelimit, accesslog=extproc))
    configuration = tmp_path / "envoy.yaml"
    configuration.write_text(dump(document))

    assert validate(binary, configuration) == ""
    assert undefined_clusters(document, policy, "envoy.yaml") == []


POLICY = """
apiVersion: headgate/v1
on_store_failure: closed
identity: [{jwt: {payload_header: x-payload, tenant_claim: org}}, {api_key: {header: x-key}}, {anonymous: {tenant: a}}]
tenants: {a: {tier: small}}
tiers: {small: {priority: 0, max_body: 1KiB}, large: {priority: 1, max_body: 2KiB}}
models: {m: {routes: [{cluster: named}]}}
clusters:
  literal: {protocol: triton, model: m, endpoints: ["10.0.0.1:1", "[::1]:2"]}
  named: {protocol: openai, model: m, endpoints: ["10.0.0.1:1", "host:2"]}
"""


@pytest.fixture(scope="module")
def policy() -> Policy:
    return load_policy(POLICY.encode(), "policy.yaml")


@pytest.fixture(scope="module")
def document(policy: Policy) -> dict[str, Any]:
    return bootstrap(policy, EnvoySettings(extproc="unix:/run/headgate.sock"))


def _clusters(document: dict[str, Any]) -> dict[str, Any]:
    return {cluster["name"]: cluster for cluster in document["static_resources"]["clusters"]}


def _values(document: object, key: str) -> Iterator[Any]:
    """Every value under this key, anywhere."""
    if isinstance(document, dict):
        yield from (value for name, value in document.items() if name == key)
    if isinstance(document, (dict, list)):
        for inner in document.values() if isinstance(document, dict) else document:
            yield from _values(inner, key)


def test_only_names_are_looked_up(document: dict[str, Any]) -> None:
    kinds = {name: cluster["type"] for name, cluster in _clusters(document).items()}

    assert kinds == {
        "literal": "STATIC",
        "named": "STRICT_DNS",
        "headgate_extproc": "STATIC",
        "headgate_ratelimit": "STATIC",
        "headgate_accesslog": "STATIC",
    }


def test_no_cluster_can_refuse_before_headgate_does(document: dict[str, Any]) -> None:
    for cluster in _clusters(document).values():
        (limits,) = cluster["circuit_breakers"]["thresholds"]
        assert set(limits) == {"max_connections", "max_pending_requests", "max_requests", "max_retries"}
        assert min(limits.values()) >= 100_000


def test_the_buffer_is_as_large_as_the_largest_body_any_tier_may_send(document: dict[str, Any]) -> None:
    (routes,) = _values(document, "routes")
    limits = {route["name"]: route["request_body_buffer_limit"] for route in routes}

    assert limits["undecided"] == 2048
    assert limits["decided"] > limits["undecided"]


def test_credentials_of_the_policy_are_removed_where_they_are_not_to_be_trusted(document: dict[str, Any]) -> None:
    (mutations,) = _values(document, "mutations")
    (withheld,) = _values(document, "request_headers_to_remove")

    assert {"remove": "x-payload"} in mutations
    assert "x-key" in withheld


@pytest.mark.parametrize(("on_store_failure", "denies"), [("closed", True), ("open", False), ("local", False)])
def test_without_the_rate_limit_service_the_policy_decides(on_store_failure: str, *, denies: bool) -> None:
    text = POLICY.replace("closed", on_store_failure)
    parts = ratelimit_parts(load_policy(text.encode(), "policy.yaml"), EnvoySettings())
    (limiter,) = parts["http_connection_manager"]["http_filters"]

    assert limiter["typed_config"].get("failure_mode_deny", False) is denies


def test_reading_streams_can_be_left_out(policy: Policy) -> None:
    def chain(*, stream_usage: bool) -> set[str]:
        (filters,) = _values(bootstrap(policy, EnvoySettings(stream_usage=stream_usage)), "http_filters")
        return {item["name"] for item in filters}

    assert chain(stream_usage=True) - chain(stream_usage=False) == {
        "envoy.filters.http.sse_to_metadata",
        "envoy.filters.http.lua",
    }


def test_only_clusters_with_something_to_choose_from_and_a_reason_are_hashed() -> None:
    two, one = '["10.0.0.1:1", "10.0.0.2:1"]', '["10.0.0.1:1"]'
    clusters = {
        "by_session": f"{{protocol: openai, model: m, endpoints: {two}, affinity: session}}",
        "by_prefix": f"{{protocol: openai, model: m, endpoints: {two}, affinity: prefix}}",
        "alone": f"{{protocol: openai, model: m, endpoints: {one}, affinity: session}}",
        "off": f"{{protocol: openai, model: m, endpoints: {two}}}",
        "named": f"{{protocol: openai, model: m, endpoints: {two}}}",
    }
    text = POLICY.split("clusters:")[0] + "clusters:\n" + "".join(f"  {k}: {v}\n" for k, v in clusters.items())
    rendered = bootstrap(load_policy(text.encode(), "policy.yaml"), EnvoySettings())

    hashed = {name: cluster["lb_policy"] for name, cluster in _clusters(rendered).items() if name in clusters}
    assert hashed == {
        "by_session": "MAGLEV",
        "by_prefix": "MAGLEV",
        "alone": "LEAST_REQUEST",
        "off": "LEAST_REQUEST",
        "named": "LEAST_REQUEST",
    }
    bounded = {name for name, cluster in _clusters(rendered).items() if "common_lb_config" in cluster}
    assert bounded == {"by_prefix"}


def test_only_grpcs_stream_is_read_message_by_message() -> None:
    text = POLICY.replace(
        'endpoints: ["10.0.0.1:1", "[::1]:2"]', 'endpoints: ["10.0.0.1:1"], grpc_endpoints: ["10.0.0.1:3"]'
    )
    rendered = bootstrap(load_policy(text.encode(), "policy.yaml"), EnvoySettings())

    (routes,) = _values(rendered, "routes")
    assert [route["name"] for route in routes] == ["decided", "undecided_stream", "undecided"]
    assert routes[1]["match"] == {"path": "/inference.GRPCInferenceService/ModelStreamInfer"}
    assert set(_values(routes[1], "request_body_mode")) == {"FULL_DUPLEX_STREAMED"}
    assert sorted(_values(rendered, "request_body_mode")) == ["BUFFERED", "FULL_DUPLEX_STREAMED"]
    assert "literal.kserve_grpc" in _clusters(rendered)
