"""The routes: where ext_proc's `x-model-cluster` leads, and what the client is told of the decision."""

from __future__ import annotations

from datetime import timedelta

from envoy_data_plane.envoy.config.core.v3 import (
    HeaderValue,
    HeaderValueOption,
    HeaderValueOptionHeaderAppendAction,
)
from envoy_data_plane.envoy.config.route.v3 import (
    HeaderMatcher,
    RetryPolicy,
    RetryPolicyRetryHostPredicate,
    Route,
    RouteAction,
    RouteActionClusterNotFoundResponseCode,
    RouteActionHashPolicy,
    RouteActionHashPolicyHeader,
    RouteActionMaxStreamDuration,
    RouteConfiguration,
    RouteMatch,
    VirtualHost,
)
from envoy_data_plane.envoy.extensions.retry.host.previous_hosts.v3 import PreviousHostsPredicate
from envoy_data_plane.google.protobuf import Any

from extproc.affinity import AFFINITY_HEADER
from extproc.inspection.target import STREAM_INFER_PATH
from headgate.policy.model import Affinity, ApiKeyIdentity, Policy, Protocol
from headgate_cli.render.filters import CLUSTER_HEADER, EXT_PROC, METADATA, message_by_message
from headgate_cli.render.timeouts import Timeouts

JSON_RESPONSE_BYTES = 64 * 1024 * 1024
"""The longest JSON response: its usage is read from the whole document. Streams and other types have no limit."""

_SHOWN = ("decision", "model")
_DRAWS = 32


def route_configuration(policy: Policy, timeouts: Timeouts) -> RouteConfiguration:
    """One virtual host: to the cluster ext_proc named, or nowhere."""
    host = VirtualHost(
        name="headgate",
        domains=["*"],
        routes=routes(policy, timeouts),
        request_headers_to_remove=_withheld(policy),
        response_headers_to_remove=[f"x-headgate-{name}" for name in _SHOWN],
        response_headers_to_add=[
            *(_response_header(f"x-headgate-{name}", name) for name in _SHOWN),
            # Appended: a model server may have timings of its own.
            _response_header("server-timing", "server_timing"),
        ],
    )
    return RouteConfiguration(name="headgate", virtual_hosts=[host])


def routes(policy: Policy, timeouts: Timeouts) -> list[Route]:
    """To the cluster ext_proc named, and where a request is before that."""
    frontends = (frontend for cluster in policy.clusters.values() for frontend in cluster.frontends.values())
    has_grpc = any(frontend.protocol is Protocol.KSERVE_GRPC for frontend in frontends)
    return [_decided(policy, timeouts), *([_undecided_stream(policy)] if has_grpc else []), _undecided(policy)]


def _decided(policy: Policy, timeouts: Timeouts) -> Route:
    action = RouteAction(
        cluster_header=CLUSTER_HEADER,
        timeout=timedelta(0),
        idle_timeout=timeouts.routed_idle,
        retry_policy=_retry_policy(),
        hash_policy=_hash_policy(policy),
        # A gRPC client's own deadline (0: as long as it says), which the model server is told as well.
        max_stream_duration=RouteActionMaxStreamDuration(grpc_timeout_header_max=timedelta(0)),
    )
    match = RouteMatch(prefix="/", headers=[HeaderMatcher(name=CLUSTER_HEADER, present_match=True)])
    # Despite its name this limits what filters may buffer in both directions; the request has been read by now.
    limit = max(policy.max_body_bytes, JSON_RESPONSE_BYTES)
    return Route(name="decided", match=match, route=action, request_body_buffer_limit=limit)


def _undecided_stream(policy: Policy) -> Route:
    route = _undecided(policy)
    route.name = "undecided_stream"
    route.match = RouteMatch(path=STREAM_INFER_PATH)
    route.typed_per_filter_config = {EXT_PROC: Any.pack(message_by_message())}
    return route


def _undecided(policy: Policy) -> Route:
    # Where every request is until ext_proc has decided. Not a direct_response: under one, Envoy ignores the limit
    # and refuses any body that exceeds the connection's own small buffer.
    action = RouteAction(
        cluster_header=CLUSTER_HEADER,
        cluster_not_found_response_code=RouteActionClusterNotFoundResponseCode.NOT_FOUND,
    )
    return Route(
        name="undecided",
        match=RouteMatch(prefix="/"),
        route=action,
        request_body_buffer_limit=policy.max_body_bytes,
    )


def _hash_policy(policy: Policy) -> list[RouteActionHashPolicy]:
    if all(cluster.affinity is Affinity.OFF for cluster in policy.clusters.values()):
        return []
    return [RouteActionHashPolicy(header=RouteActionHashPolicyHeader(header_name=AFFINITY_HEADER))]


def _retry_policy() -> RetryPolicy:
    # Only what no model has seen yet. A 429 is never retried: it would meet the same limit and charge it twice.
    previous_hosts = RetryPolicyRetryHostPredicate(
        name="envoy.retry_host_predicates.previous_hosts", typed_config=Any.pack(PreviousHostsPredicate())
    )
    return RetryPolicy(
        retry_on="connect-failure,refused-stream,reset-before-request",
        num_retries=2,
        retry_host_predicate=[previous_hosts],
        # Least-request prefers an endpoint that refuses everybody: drawing again once would draw it again.
        host_selection_retry_max_attempts=_DRAWS,
    )


def _withheld(policy: Policy) -> list[str]:
    # A model server needs no client's key; and a compressed response would hide its token usage from Envoy.
    keys = {source.header for source in policy.identity if isinstance(source, ApiKeyIdentity)}
    return [*sorted(keys), "accept-encoding"]


def _response_header(name: str, key: str) -> HeaderValueOption:
    """A header with what ext_proc said under `key`; no header where it said nothing."""
    return HeaderValueOption(
        header=HeaderValue(key=name, value=f"%DYNAMIC_METADATA({METADATA}:{key})%"),
        append_action=HeaderValueOptionHeaderAppendAction.APPEND_IF_EXISTS_OR_ADD,
    )
