"""Where a request runs: the first route of its model that holds and whose cluster speaks the client's protocol."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Protocol as Interface

import msgspec

from extproc.headers import Headers
from extproc.identity import Identity
from extproc.inspection.request import InferenceRequest
from extproc.inspection.target import Operation, Target
from headgate.policy.model import (
    Cluster,
    Decoding,
    Frontend,
    OutputTokens,
    Place,
    Policy,
    Protocol,
    Route,
    RoutingTable,
    Tier,
)
from headgate.store import Scope

DEFAULT_EXPECTED_OUTPUT_TOKENS = 256
"""What a request that names no limit is taken to produce, where neither tier nor route says more."""

MAX_CHARGED_TOKENS = 1_000_000_000
"""Envoy ignores a larger `hits_addend`, and with it the whole token limit."""
_NO_OVERRIDES: Mapping[str, Decoding] = MappingProxyType({})


class Signals(Interface):
    """The state of the clusters as last known; answers at once."""

    def saturation(self, cluster: str) -> float:
        """0.0 idle .. 1.0 full."""

    def queue_depth(self, cluster: str) -> int:
        """Requests waiting for the cluster."""

    def in_flight(self, scope: Scope, name: str) -> int:
        """Leases of a tenant, tier or cluster."""

    def request_limit(self, cluster: Cluster) -> int | None:
        """How many requests the cluster runs at once, by policy or by experience."""

    def is_unavailable(self, cluster: str) -> bool:
        """Whether none of the cluster's servers takes requests."""

    def is_degraded(self, tier: Tier, cluster: str) -> bool:
        """Whether the tier is being sent to cheaper clusters instead."""

    def begin_degrading(self, tier: Tier, cluster: str, scope: Scope) -> None:
        """The cluster had no room for a request of the tier, which is sent to a cheaper one."""


class Destination(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One place a request can run, and what its output is capped to there (None: no cap).

    Attributes:
        output_cap: the route's own cap, whatever this request asked for.
        priority: the tier's.
        overrides: the decoding parameters the route sets.
    """

    cluster: Cluster
    frontend: Frontend
    max_output_tokens: int | None
    charged_tokens: int
    prompt_tokens: int
    is_degraded: bool
    reason: str
    priority: int = 0
    overrides: Mapping[str, Decoding] = _NO_OVERRIDES
    output_cap: int | None = None


class NoDestination(msgspec.Struct, frozen=True, gc=False):
    """Why there is none: `protocol_not_served` or `no_route`."""

    reason: str
    message: str


def is_served(policy: Policy, target: Target) -> bool:
    """Whether any route could take such a request, as far as its path tells."""
    if target.protocol is None:
        return False
    if target.model is None:
        return policy.is_served(target.protocol, target.operation)
    return bool(policy.routing_table(target.model, target.protocol, target.operation).places)


def find_route(
    policy: Policy, identity: Identity, request: InferenceRequest, headers: Headers, signals: Signals, region: str
) -> Destination | NoDestination:
    """Walk the model's routing table."""
    table = policy.routing_table(request.model, request.protocol, request.operation)
    index = policy.rules.first_match(table.conditions, _Asking(identity, request, headers, region, signals))
    if index is None:
        return _nowhere(request, table)
    return _destination(identity, request, table.places[index])


def _nowhere(request: InferenceRequest, table: RoutingTable) -> NoDestination:
    if table.places:
        return NoDestination("no_route", f"No route of the model '{request.model}' takes this request.")
    return NoDestination("protocol_not_served", f"The model '{request.model}' is not served over {_api(request)}.")


def degraded_routes(
    policy: Policy, identity: Identity, request: InferenceRequest, refused: Destination
) -> list[Destination]:
    """The cheaper places the model names, in order, without the one that has just refused."""
    model = policy.models[request.model]
    routes = {route.cluster: route for route in reversed(model.routes)}
    places = [
        policy.place(routes.get(name, Route(cluster=name)), request.protocol, request.operation, is_degraded=True)
        for name in model.degrade
        if name != refused.cluster.name
    ]
    return [_destination(identity, request, place) for place in places if place is not None]


def capped_output_tokens(asked: int | None, tier: OutputTokens, route_limit: int | None) -> int | None:
    """What the client asked for (or the tier's default), under the tightest of the caps; None without any."""
    tokens = tier.default if asked is None else asked
    if tier.max is not None and (tokens is None or tier.max < tokens):
        tokens = tier.max
    if route_limit is not None and (tokens is None or route_limit < tokens):
        tokens = route_limit
    return tokens


_API = {
    Protocol.OPENAI: "OpenAI",
    Protocol.TRITON: "Triton",
    Protocol.ANTHROPIC: "Anthropic",
    Protocol.KSERVE_GRPC: "KServe gRPC",
}
_USUAL = (Operation.CHAT, Operation.COMPLETION)


def _api(request: InferenceRequest) -> str:
    api = f"the {_API[request.protocol]} API"
    is_plain = request.protocol is not Protocol.OPENAI or request.operation in _USUAL
    return api if is_plain else f"{api}'s {request.operation}"


def _destination(identity: Identity, request: InferenceRequest, place: Place) -> Destination:
    route = place.route
    asked, tier = request.max_output_tokens, identity.tier.output_tokens
    cap = capped_output_tokens(asked, tier, route.max_output_tokens)
    max_output_tokens, expected = (cap, _expected_output_tokens(request) if cap is None else cap)
    if not request.has_output:
        max_output_tokens, expected = None, 0
    return Destination(
        cluster=place.cluster,
        frontend=place.frontend,
        max_output_tokens=max_output_tokens,
        charged_tokens=min(request.prompt_tokens + expected * request.choices, MAX_CHARGED_TOKENS),
        prompt_tokens=request.prompt_tokens,
        is_degraded=place.is_degraded,
        reason=route.reason or "",
        output_cap=route.max_output_tokens,
        priority=identity.tier.priority,
        overrides=route.overrides,
    )


class _Asking(msgspec.Struct, frozen=True, gc=False):
    """What a rule may ask about; see `RuleFacts`."""

    identity: Identity
    request: InferenceRequest
    headers: Headers
    region: str
    signals: Signals

    def variable(self, name: str) -> object:
        return _VARIABLES[name](self)

    def saturation(self, cluster: str) -> float:
        return self.signals.saturation(cluster)

    def queue_depth(self, cluster: str) -> int:
        return self.signals.queue_depth(cluster)

    def header(self, name: str) -> str:
        return self.headers.get(name)


_VARIABLES: Mapping[str, Callable[[_Asking], object]] = {
    "tenant": lambda asking: asking.identity.tenant.name,
    "tier": lambda asking: asking.identity.tier.name,
    "model": lambda asking: asking.request.model,
    "protocol": lambda asking: asking.request.protocol.value,
    "stream": lambda asking: asking.request.stream,
    "prompt_tokens": lambda asking: asking.request.prompt_tokens,
    "prompt_bytes": lambda asking: asking.request.prompt.size_bytes,
    "max_output_tokens": lambda asking: asking.request.max_output_tokens or 0,
    "expected_output_tokens": lambda asking: _expected_output_tokens(asking.request),
    "tools": lambda asking: asking.request.prompt.tools,
    "images": lambda asking: asking.request.prompt.images,
    "audio_seconds": lambda asking: math.ceil(asking.request.prompt.audio_seconds),
    "operation": lambda asking: asking.request.operation.value,
    "service_tier": lambda asking: asking.request.service_tier,
    "messages": lambda asking: asking.request.prompt.messages,
    "session": lambda asking: asking.headers.get("x-session-id"),
    "region": lambda asking: asking.region,
}


def _expected_output_tokens(request: InferenceRequest) -> int:
    if not request.has_output:
        return 0
    asked, usual = request.max_output_tokens, request.expected_output_tokens
    if asked is None:
        return DEFAULT_EXPECTED_OUTPUT_TOKENS if usual is None else usual
    return asked if usual is None else min(asked, usual)
