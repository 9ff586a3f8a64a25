"""The policy file -> `Policy`: every section, then what the sections say of each other.

Finds all problems of a file in one go. Reads bytes it is given; opens nothing and watches nothing.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import TypeVar

from headgate.errors import PolicyError
from headgate.policy.document import Node, parse_document
from headgate.policy.model import (
    DEFAULT_MAX_BODY_BYTES,
    AnonymousIdentity,
    ApiKeyIdentity,
    Capacity,
    Cluster,
    Frontend,
    IdentitySource,
    JwtIdentity,
    Model,
    MtlsIdentity,
    OnStoreFailure,
    OutputTokens,
    Policy,
    Price,
    Protocol,
    Queue,
    Route,
    Rung,
    Tenant,
    TenantLimits,
    Tier,
)
from headgate.policy.rules import Rule, RuleEngine, RuleError

API_VERSION = "headgate/v1"
NAME = r"[A-Za-z0-9][A-Za-z0-9._@:/-]{0,127}"
"""Names travel in headers, metric labels and rate limit descriptors."""
_CLUSTER_NAME = r"[A-Za-z0-9][A-Za-z0-9_-]{0,62}"
_HEADER = r"[a-z0-9][a-z0-9-]*"
_REASON = r"[a-z][a-z0-9_]{0,62}"
_ENDPOINT = r"(?:[A-Za-z0-9_.-]+|\[[0-9a-fA-F:]+\]):[0-9]{1,5}"
_SHA256 = r"[0-9a-f]{64}"
_UINT32 = 2**32 - 1
MAX_WAIT_SECONDS = 3000.0
"""Envoy's message timeout ends at one hour; the rest is margin."""
MAX_BODY_BYTES = 256 * 1024 * 1024

Value = TypeVar("Value")


def load_policy(text: bytes, file: str) -> Policy:
    """Read a whole policy.

    Args:
        text: the file's bytes.
        file: its name, for the messages.

    Raises:
        PolicyError: with every problem of the file.
    """
    root = parse_document(text, file)
    sections = root.fields(
        "on_store_failure", required=("apiVersion", "identity", "tenants", "tiers", "models", "clusters")
    )
    policy = _Loader(sections).policy(version=hashlib.sha256(text).hexdigest()[:12])
    if root.problems or policy is None:
        raise PolicyError(root.problems)
    return policy


class _Loader:
    """Reads the sections; knows all names from the start, so that every reference is checked where it stands."""

    def __init__(self, sections: Mapping[str, Node]) -> None:
        self._sections = sections
        self._tiers = self._names("tiers")
        self._tenants = self._names("tenants")
        self._clusters = self._names("clusters")
        self._engine = RuleEngine()
        self._key_owner: dict[str, str] = {}

    def policy(self, version: str) -> Policy | None:
        """The policy, or None where a section is missing; problems are noted on the nodes."""
        sections = self._sections
        if "apiVersion" in sections:
            sections["apiVersion"].text(API_VERSION, f"'{API_VERSION}'")
        failure = sections.get("on_store_failure")
        tiers = self._section("tiers", NAME, self._tier)
        self._check_reservations(tiers)
        policy = Policy(
            version=version,
            identity=tuple(self._identity(sections["identity"])) if "identity" in sections else (),
            tiers=tiers,
            tenants=self._section("tenants", NAME, self._tenant),
            clusters=self._section("clusters", _CLUSTER_NAME, self._cluster),
            models=self._section("models", NAME, self._model),
            tenants_by_key=MappingProxyType(self._key_owner),
            rules=self._engine,
            on_store_failure=failure.choice(OnStoreFailure, OnStoreFailure.CLOSED)
            if failure
            else OnStoreFailure.CLOSED,
        )
        complete = policy.tiers and policy.clusters and policy.models and policy.identity
        return policy if complete else None

    def _names(self, section: str) -> set[str]:
        node = self._sections.get(section)
        return {name for name, _ in node.silent().named()} if node else set()

    def _section(self, section: str, pattern: str, read: Callable[[str, Node], Value]) -> Mapping[str, Value]:
        values: dict[str, Value] = {}
        node = self._sections.get(section)
        if node is None:
            return values
        for name, child in node.named():
            if not re.fullmatch(pattern, name):
                child.report(f"'{name}' cannot be a name: letters, digits and ._@:/- are allowed")
            values[name] = read(name, child)
        if not values and section != "tenants":
            node.report("names nothing")
        return MappingProxyType(values)

    # identity

    def _identity(self, node: Node) -> Iterator[IdentitySource]:
        elements = node.elements()
        for index, element in enumerate(elements):
            source = self._identity_source(element)
            if isinstance(source, AnonymousIdentity) and index + 1 < len(elements):
                element.report("'anonymous' takes every request; it has to be the last")
            if source is not None:
                yield source
        if not elements:
            node.report("names no way to tell who is asking")

    def _identity_source(self, node: Node) -> IdentitySource | None:
        kinds = node.fields("jwt", "api_key", "mtls", "anonymous")
        if len(kinds) != 1:
            node.report("has to name exactly one of jwt, api_key, mtls, anonymous")
            return None
        [(kind, source)] = kinds.items()
        match kind:
            case "jwt":
                return self._jwt(source)
            case "api_key":
                fields = source.fields(required=("header",))
                return ApiKeyIdentity(header=self._header(fields.get("header")))
            case "mtls":
                return self._mtls(source)
            case _:
                fields = source.fields(required=("tenant",))
                tenant = fields.get("tenant")
                return AnonymousIdentity(tenant=tenant.reference("tenant", self._tenants) if tenant else "")

    def _jwt(self, node: Node) -> JwtIdentity:
        fields = node.fields("default_tier", required=("payload_header", "tenant_claim"))
        claim = fields.get("tenant_claim")
        return JwtIdentity(
            payload_header=self._header(fields.get("payload_header")),
            tenant_claim=claim.text() if claim else "",
            default_tier=self._default_tier(fields),
        )

    def _mtls(self, node: Node) -> MtlsIdentity:
        fields = node.fields("default_tier", required=("spiffe",))
        pattern = fields["spiffe"].text() if "spiffe" in fields else ""
        if pattern and (not pattern.startswith("spiffe://") or pattern.count("{tenant}") != 1):
            fields["spiffe"].report("has to start with spiffe:// and hold {tenant} once")
        return MtlsIdentity(spiffe=pattern, default_tier=self._default_tier(fields))

    def _default_tier(self, fields: Mapping[str, Node]) -> str | None:
        node = fields.get("default_tier")
        return node.reference("tier", self._tiers) if node else None

    def _header(self, node: Node | None) -> str:
        return node.text(_HEADER, "a lower-case header name") if node else ""

    # tenants

    def _tenant(self, name: str, node: Node) -> Tenant:
        fields = node.fields("api_key_sha256", "weight", "limits", required=("tier",))
        keys = fields["api_key_sha256"].elements() if "api_key_sha256" in fields else []
        return Tenant(
            name=name,
            tier=fields["tier"].reference("tier", self._tiers) if "tier" in fields else "",
            api_key_sha256=tuple(self._key(name, key) for key in keys),
            weight=fields["weight"].number(0.001, 1000) if "weight" in fields else 1.0,
            limits=_limits(fields["limits"]) if "limits" in fields else TenantLimits(),
        )

    def _key(self, tenant: str, node: Node) -> str:
        digest = node.text(_SHA256, "a sha256 in 64 lower-case hex digits")
        owner = self._key_owner.setdefault(digest, tenant) if digest else tenant
        if owner != tenant:
            node.report(f"is also the key of tenant '{owner}'")
        return digest

    # tiers

    def _tier(self, name: str, node: Node) -> Tier:
        fields = node.fields(
            "reserved", "concurrency", "queue", "on_overload", "output_tokens", "slo", "preemptible", "max_body",
            required=("priority",),
        )  # fmt: skip
        concurrency = fields["concurrency"].fields("tier", "tenant") if "concurrency" in fields else {}
        queue = _queue(fields["queue"]) if "queue" in fields else None
        ladder = _ladder(fields["on_overload"]) if "on_overload" in fields else (Rung.REJECT,)
        if Rung.QUEUE in ladder and queue is None:
            fields["on_overload"].report("names queue, but the tier has no queue")
        slo = fields["slo"].fields("ttft") if "slo" in fields else {}
        return Tier(
            name=name,
            priority=fields["priority"].integer(0, 1000) if "priority" in fields else 0,
            reserved=fields["reserved"].number(0.0, 1.0) if "reserved" in fields else 0.0,
            tier_concurrency=_optional_integer(concurrency, "tier"),
            tenant_concurrency=_optional_integer(concurrency, "tenant"),
            queue=queue,
            on_overload=ladder,
            output_tokens=_output_tokens(fields["output_tokens"]) if "output_tokens" in fields else OutputTokens(),
            ttft_slo_seconds=slo["ttft"].seconds() if "ttft" in slo else None,
            preemptible=fields["preemptible"].boolean() if "preemptible" in fields else False,
            max_body_bytes=_max_body(fields["max_body"]) if "max_body" in fields else DEFAULT_MAX_BODY_BYTES,
        )

    def _check_reservations(self, tiers: Mapping[str, Tier]) -> None:
        total = sum(tier.reserved for tier in tiers.values())
        if total > 1.0:
            self._sections["tiers"].report(f"reserve {total:.0%} of every cluster in all; more than there is")

    # models

    def _model(self, name: str, node: Node) -> Model:
        fields = node.fields("degrade", required=("routes",))
        routes = fields["routes"].elements() if "routes" in fields else []
        if "routes" in fields and not routes:
            fields["routes"].report("names no route")
        degrade = fields["degrade"].elements() if "degrade" in fields else []
        return Model(
            name=name,
            routes=tuple(self._route(route) for route in routes),
            degrade=tuple(cluster.reference("cluster", self._clusters) for cluster in degrade),
        )

    def _route(self, node: Node) -> Route:
        fields = node.fields("when", "max_output_tokens", "reason", required=("cluster",))
        return Route(
            cluster=fields["cluster"].reference("cluster", self._clusters) if "cluster" in fields else "",
            when=self._rule(fields["when"]) if "when" in fields else None,
            max_output_tokens=_optional_integer(fields, "max_output_tokens", minimum=1),
            reason=fields["reason"].text(_REASON, "lower_case_words") if "reason" in fields else None,
        )

    def _rule(self, node: Node) -> Rule | None:
        source = node.text()
        if not source:
            return None
        try:
            rule = self._engine.compile(source)
        except RuleError as error:
            node.report(f"is not a condition: {error}")
            return None
        for cluster in rule.clusters():
            if cluster not in self._clusters:
                node.report(f"no cluster named '{cluster}'")
        return rule

    # clusters

    def _cluster(self, name: str, node: Node) -> Cluster:
        fields = node.fields("protocol", "model", "endpoints", "frontends", "capacity", "metrics", "price")
        return Cluster(
            name=name,
            frontends=MappingProxyType(_frontends(name, node, fields)),
            capacity=_capacity(fields["capacity"]) if "capacity" in fields else Capacity(),
            metrics=_endpoint(fields["metrics"]) if "metrics" in fields else None,
            price=_price(fields["price"]) if "price" in fields else Price(),
        )


def _limits(node: Node) -> TenantLimits:
    fields = node.fields("concurrency", "requests_per_minute", "tokens_per_minute")
    return TenantLimits(
        concurrency=_optional_integer(fields, "concurrency"),
        requests_per_minute=_optional_integer(fields, "requests_per_minute", maximum=_UINT32),
        tokens_per_minute=_optional_integer(fields, "tokens_per_minute", maximum=_UINT32),
    )


def _queue(node: Node) -> Queue | None:
    fields = node.fields(required=("max_wait", "max_depth"))
    if len(fields) < 2:
        return None
    wait_seconds = fields["max_wait"].seconds()
    if wait_seconds > MAX_WAIT_SECONDS:
        fields["max_wait"].report(f"has to be at most {MAX_WAIT_SECONDS:.0f}s: Envoy holds no request longer")
    return Queue(max_wait_seconds=wait_seconds, max_depth=fields["max_depth"].integer(0, 1_000_000))


def _ladder(node: Node) -> tuple[Rung, ...]:
    rungs = tuple(element.choice(Rung, Rung.REJECT) for element in node.elements())
    if len(set(rungs)) < len(rungs):
        node.report("names a step twice")
    if not rungs or rungs[-1] is not Rung.REJECT or Rung.REJECT in rungs[:-1]:
        node.report("has to end with reject, and name it only there")
    return rungs


def _output_tokens(node: Node) -> OutputTokens:
    fields = node.fields("default", "max")
    tokens = OutputTokens(
        default=_optional_integer(fields, "default", minimum=1),
        max=_optional_integer(fields, "max", minimum=1),
    )
    if tokens.default and tokens.max and tokens.default > tokens.max:
        fields["default"].report(f"is above the max of {tokens.max}")
    return tokens


def _max_body(node: Node) -> int:
    size = node.size_bytes()
    if not 1024 <= size <= MAX_BODY_BYTES:
        node.report("has to be between 1KiB and 256MiB")
    return size


def _frontends(cluster: str, node: Node, fields: Mapping[str, Node]) -> dict[Protocol, Frontend]:
    if "frontends" not in fields:
        in_place = {key: fields[key] for key in ("protocol", "model", "endpoints") if key in fields}
        frontend = _frontend(cluster, node, in_place)
        return {frontend.protocol: frontend} if frontend else {}
    for key in ("protocol", "model", "endpoints"):
        if key in fields:
            fields[key].report("stands in each of the frontends, not beside them")
    frontends: dict[Protocol, Frontend] = {}
    elements = fields["frontends"].elements()
    if not elements:
        fields["frontends"].report("names no frontend")
    for element in elements:
        frontend = _frontend(cluster, element, element.fields("protocol", "model", "endpoints"))
        if frontend is None:
            continue
        if frontend.protocol in frontends:
            element.report(f"the cluster has a frontend for {frontend.protocol} already")
        frontends[frontend.protocol] = frontend
    if len(frontends) < 2:
        return frontends
    # Two APIs of one pool are two clusters to Envoy, which knows an upstream by its ports.
    return {p: replace(f, envoy_cluster=f"{cluster}.{p}") for p, f in frontends.items()}


def _frontend(cluster: str, node: Node, fields: Mapping[str, Node]) -> Frontend | None:
    missing = [key for key in ("protocol", "model", "endpoints") if key not in fields]
    for key in missing:
        node.report(f"'{key}' is missing")
    if missing:
        return None
    endpoints = fields["endpoints"].elements()
    if not endpoints:
        fields["endpoints"].report("names no endpoint")
    return Frontend(
        protocol=fields["protocol"].choice(Protocol, Protocol.TRITON),
        model=fields["model"].text(),
        endpoints=tuple(_endpoint(endpoint) for endpoint in endpoints),
        envoy_cluster=cluster,
    )


def _endpoint(node: Node) -> str:
    endpoint = node.text(_ENDPOINT, "host:port")
    if endpoint and not 0 < int(endpoint.rpartition(":")[2]) < 65536:
        node.report(f"has to be host:port, not '{endpoint}'")
    return endpoint


def _capacity(node: Node) -> Capacity:
    if node.is_text:
        node.text("auto", "'auto' or a mapping of requests and tokens")
        return Capacity(auto=True)
    fields = node.fields("requests", "tokens")
    return Capacity(requests=_optional_integer(fields, "requests"), tokens=_optional_integer(fields, "tokens"))


def _price(node: Node) -> Price:
    fields = node.fields("prompt", "cached_prompt", "output")
    return Price(
        prompt=fields["prompt"].number() if "prompt" in fields else 0.0,
        cached_prompt=fields["cached_prompt"].number() if "cached_prompt" in fields else None,
        output=fields["output"].number() if "output" in fields else 0.0,
    )


def _optional_integer(fields: Mapping[str, Node], key: str, *, minimum: int = 0, maximum: int = 2**53) -> int | None:
    return fields[key].integer(minimum, maximum) if key in fields else None
