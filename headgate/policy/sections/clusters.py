"""The section `clusters`: where models run, over which APIs, and how much each pool holds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from enum import StrEnum
from types import MappingProxyType

from headgate.policy.model import (
    DEFAULT_OPERATIONS,
    Affinity,
    Backend,
    Capacity,
    Cluster,
    Frontend,
    MetricsAddress,
    OpenAiOperation,
    Price,
    Protocol,
)
from headgate.policy.node import Node, optional_integer

_FRONTEND = ("protocol", "model", "endpoints")
_GRPC = "grpc_endpoints"
_OPTIONAL = ("operations", _GRPC)
_CLUSTER = ("frontends", "capacity", "metrics", "price", "affinity", "backend", "ask_for_usage")
_PRIORITY = ("send_priority", "priority_levels")
_MAX_PRIORITY_LEVELS = 1000
_ENDPOINT = r"(?:[A-Za-z0-9_.-]+|\[[0-9a-fA-F:]+\]):[0-9]{1,5}"
_METRICS = rf"grpc://{_ENDPOINT}|{_ENDPOINT}(?:/[!-~]*)?"
_METRICS_FORMS = "host:port, host:port/path or grpc://host:port"


class _FrontendProtocol(StrEnum):
    """What a frontend's `protocol` may say; Anthropic's API is an operation of OpenAI's, gRPC a port of Triton's."""

    OPENAI = Protocol.OPENAI
    TRITON = Protocol.TRITON


def read_cluster(name: str, node: Node) -> Cluster:
    """One cluster. Its frontend stands in place when it is the only one."""
    fields = node.fields(*_FRONTEND, *_OPTIONAL, *_CLUSTER, *_PRIORITY)
    frontends = _in_place(name, node, fields) if "frontends" not in fields else _listed(name, fields)
    backend = fields["backend"].choice(Backend) if "backend" in fields else None
    return Cluster(
        name=name,
        frontends=MappingProxyType(frontends),
        capacity=_capacity(fields["capacity"]) if "capacity" in fields else Capacity(),
        metrics=_metrics(fields["metrics"]) if "metrics" in fields else (),
        price=_price(fields["price"]) if "price" in fields else Price(),
        affinity=(fields["affinity"].choice(Affinity) if "affinity" in fields else None) or Affinity.OFF,
        backend=backend,
        sends_priority=_send_priority(fields, backend),
        asks_for_usage=fields["ask_for_usage"].boolean() if "ask_for_usage" in fields else False,
        priority_levels=_priority_levels(fields["priority_levels"], backend) if "priority_levels" in fields else None,
    )


def _send_priority(fields: Mapping[str, Node], backend: Backend | None) -> bool:
    if "send_priority" not in fields:
        return False
    node = fields["send_priority"]
    is_wanted = node.boolean()
    if is_wanted and backend is None:
        node.report(f"needs a backend, which says how it is sent: {' or '.join(Backend)}")
    if is_wanted and backend is Backend.TRITON and "priority_levels" not in fields:
        node.report("needs the priority_levels that the model's scheduler has")
    return is_wanted


def _priority_levels(node: Node, backend: Backend | None) -> int:
    if backend is not Backend.TRITON:
        node.report(f"belongs to backend: {Backend.TRITON}")
    return node.integer(1, _MAX_PRIORITY_LEVELS)


def _in_place(cluster: str, node: Node, fields: Mapping[str, Node]) -> dict[Protocol, Frontend]:
    frontend = _frontend(cluster, node, fields)
    return {frontend.protocol: frontend, **_over_grpc(cluster, frontend, fields)} if frontend else {}


def _listed(cluster: str, fields: Mapping[str, Node]) -> dict[Protocol, Frontend]:
    for key in (*_FRONTEND, *_OPTIONAL):
        if key in fields:
            fields[key].report("stands in each of the frontends, not beside them")
    frontends: dict[Protocol, Frontend] = {}
    over_grpc: dict[Protocol, Frontend] = {}
    for element in fields["frontends"].elements(empty="names no frontend"):
        keys = element.fields(*_FRONTEND, *_OPTIONAL)
        frontend = _frontend(cluster, element, keys)
        if frontend is None:
            continue
        if frontend.protocol in frontends:
            element.report(f"the cluster has a frontend for {frontend.protocol} already")
        frontends[frontend.protocol] = frontend
        over_grpc |= _over_grpc(cluster, frontend, keys)
    if len(frontends) < 2:
        return frontends | over_grpc
    # Two APIs of one pool are two clusters to Envoy, which knows an upstream by its ports.
    return {p: replace(f, envoy_cluster=f"{cluster}.{p}") for p, f in frontends.items()} | over_grpc


def _frontend(cluster: str, node: Node, fields: Mapping[str, Node]) -> Frontend | None:
    node.require(fields, _FRONTEND)
    spoken = fields["protocol"].choice(_FrontendProtocol) if "protocol" in fields else None
    model = fields["model"].text() if "model" in fields else ""
    endpoints = fields["endpoints"].elements(empty="names no endpoint") if "endpoints" in fields else []
    addresses = tuple(_endpoint(endpoint) for endpoint in endpoints)
    operations = _operations(fields["operations"], spoken) if "operations" in fields else DEFAULT_OPERATIONS
    if spoken is None:
        return None
    return Frontend(
        protocol=Protocol(spoken), model=model, endpoints=addresses, envoy_cluster=cluster, operations=operations
    )


def _over_grpc(cluster: str, frontend: Frontend, fields: Mapping[str, Node]) -> dict[Protocol, Frontend]:
    """The same model over KServe's gRPC, where the frontend names endpoints for it."""
    if _GRPC not in fields:
        return {}
    if frontend.protocol is not Protocol.TRITON:
        fields[_GRPC].report(f"belongs to a frontend of protocol {Protocol.TRITON}")
    endpoints = tuple(_endpoint(endpoint) for endpoint in fields[_GRPC].elements(empty="names no endpoint"))
    grpc = Protocol.KSERVE_GRPC
    over_grpc = Frontend(protocol=grpc, model=frontend.model, endpoints=endpoints, envoy_cluster=f"{cluster}.{grpc}")
    return {grpc: over_grpc}


def _operations(node: Node, spoken: _FrontendProtocol | None) -> frozenset[str]:
    if spoken is _FrontendProtocol.TRITON:
        node.report("is only for the protocol openai")
    named = (element.choice(OpenAiOperation) for element in node.elements(empty="names no operation"))
    return frozenset(operation.value for operation in named if operation is not None)


def _endpoint(node: Node) -> str:
    endpoint = node.text(_ENDPOINT, "host:port")
    if endpoint and not 0 < int(endpoint.rpartition(":")[2]) < 65536:
        node.report(f"has to be host:port, not '{endpoint}'")
    return endpoint


def _metrics(node: Node) -> tuple[MetricsAddress, ...]:
    nodes = [node] if node.is_text else node.elements(empty="names no address")
    return tuple(dict.fromkeys(address for each in nodes if (address := _metrics_address(each))))


def _metrics_address(node: Node) -> MetricsAddress | None:
    text = node.text(_METRICS, _METRICS_FORMS)
    if not text:
        return None
    address, slash, path = text.removeprefix("grpc://").partition("/")
    if not 0 < int(address.rpartition(":")[2]) < 65536:
        node.report(f"has to be {_METRICS_FORMS}, not '{text}'")
    return MetricsAddress(address, slash + path, is_grpc=text.startswith("grpc://"))


def _capacity(node: Node) -> Capacity:
    if node.is_text:
        node.text("auto", "'auto' or a mapping of requests and tokens")
        return Capacity(auto=True)
    fields = node.fields("requests", "tokens", "prompt_tokens_per_minute")
    is_auto = "requests" in fields and fields["requests"].silent().text("auto") == "auto"
    return Capacity(
        requests=None if is_auto else optional_integer(fields, "requests"),
        tokens=optional_integer(fields, "tokens"),
        prompt_tokens_per_minute=optional_integer(fields, "prompt_tokens_per_minute", minimum=1),
        auto=is_auto,
    )


def _price(node: Node) -> Price:
    fields = node.fields("prompt", "cached_prompt", "output")
    return Price(
        prompt=fields["prompt"].number() if "prompt" in fields else 0.0,
        cached_prompt=fields["cached_prompt"].number() if "cached_prompt" in fields else None,
        output=fields["output"].number() if "output" in fields else 0.0,
    )
