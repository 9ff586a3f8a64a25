"""Envoy clusters: one per API of a model cluster, and one for each Headgate service.

The limits here are deliberately out of the way: Headgate decides how much runs, Envoy must never refuse first.
"""

from __future__ import annotations

from datetime import timedelta

from envoy_data_plane.envoy.config.cluster.v3 import (
    CircuitBreakers,
    CircuitBreakersThresholds,
    Cluster,
    ClusterCommonLbConfig,
    ClusterCommonLbConfigConsistentHashingLbConfig,
    ClusterDiscoveryType,
    ClusterDnsLookupFamily,
    ClusterLbPolicy,
    OutlierDetection,
    UpstreamConnectionOptions,
)
from envoy_data_plane.envoy.config.core.v3 import Address as EnvoyAddress
from envoy_data_plane.envoy.config.core.v3 import (
    Http1ProtocolOptions,
    Http2ProtocolOptions,
    HttpProtocolOptions,
    KeepaliveSettings,
    Pipe,
    RoutingPriority,
    SocketAddress,
    TcpKeepalive,
)
from envoy_data_plane.envoy.config.endpoint.v3 import (
    ClusterLoadAssignment,
    Endpoint,
    LbEndpoint,
    LocalityLbEndpoints,
)
from envoy_data_plane.envoy.extensions.upstreams.http.v3 import HttpProtocolOptions as UpstreamHttp
from envoy_data_plane.envoy.extensions.upstreams.http.v3 import (
    HttpProtocolOptionsExplicitHttpConfig as ExplicitHttp,
)
from envoy_data_plane.google.protobuf import Any

from extproc.answers import SIDECAR_CLUSTER
from headgate.policy.model import Affinity, Frontend, Policy, Protocol
from headgate_cli.render.settings import Address, EnvoySettings

EXTPROC = SIDECAR_CLUSTER
RATELIMIT = "headgate_ratelimit"
ACCESSLOG = "headgate_accesslog"

BUFFER_BYTES = 32 * 1024
"""Per connection; what a slow peer can make Envoy hold. Bodies that must be read whole have a limit of their own."""

_NO_LIMIT = 1_000_000
_PREFIX_BALANCE_PERCENT = 150
"""How full an endpoint may be against the average before requests with its prefix go on to the next one."""
_UPSTREAM_IDLE = timedelta(seconds=4)
_HTTP = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"


def model_clusters(policy: Policy) -> list[Cluster]:
    """One cluster per frontend, in name order."""
    frontends = ((f, cluster.affinity) for cluster in policy.clusters.values() for f in cluster.frontends.values())
    return [_model_cluster(*frontend) for frontend in sorted(frontends, key=lambda f: f[0].envoy_cluster)]


def service_clusters(settings: EnvoySettings) -> list[Cluster]:
    """The clusters of Headgate's own three services."""
    return [
        service_cluster(EXTPROC, settings.extproc),
        service_cluster(RATELIMIT, settings.ratelimit),
        service_cluster(ACCESSLOG, settings.accesslog),
    ]


def service_cluster(name: str, address: str) -> Cluster:
    """A gRPC service: HTTP/2, with pings so that a peer that died without a word is noticed in seconds."""
    http2 = Http2ProtocolOptions(
        connection_keepalive=KeepaliveSettings(interval=timedelta(seconds=15), timeout=timedelta(seconds=5))
    )
    return _cluster(name, (address,), UpstreamHttp(explicit_http_config=ExplicitHttp(http2_protocol_options=http2)))


def envoy_address(address: Address) -> EnvoyAddress:
    """Our address in Envoy's words."""
    if address.path:
        return EnvoyAddress(pipe=Pipe(path=address.path))
    return EnvoyAddress(socket_address=SocketAddress(address=address.host, port_value=address.port))


def _model_cluster(frontend: Frontend, affinity: Affinity) -> Cluster:
    http = _http2() if frontend.protocol is Protocol.KSERVE_GRPC else _http1()
    cluster = _cluster(frontend.envoy_cluster, frontend.endpoints, http)
    cluster.outlier_detection = _outlier_detection()
    if affinity is not Affinity.OFF and len(frontend.endpoints) > 1:
        cluster.lb_policy = ClusterLbPolicy.MAGLEV
    if affinity is Affinity.PREFIX and len(frontend.endpoints) > 1:
        # Half the world may send the same prefix; a session is one client's and stays where it is.
        bounded = ClusterCommonLbConfigConsistentHashingLbConfig(hash_balance_factor=_PREFIX_BALANCE_PERCENT)
        cluster.common_lb_config = ClusterCommonLbConfig(consistent_hashing_lb_config=bounded)
    return cluster


def _http1() -> UpstreamHttp:
    # uvicorn, under trtllm-serve, closes a connection that was idle for 5 seconds; a request sent just then is lost.
    return UpstreamHttp(
        common_http_protocol_options=HttpProtocolOptions(idle_timeout=_UPSTREAM_IDLE),
        explicit_http_config=ExplicitHttp(http_protocol_options=Http1ProtocolOptions()),
    )


def _http2() -> UpstreamHttp:
    # No pings: a gRPC server takes more than one in five minutes for abuse and closes the connection.
    return UpstreamHttp(explicit_http_config=ExplicitHttp(http2_protocol_options=Http2ProtocolOptions()))


def _cluster(name: str, endpoints: tuple[str, ...], http: UpstreamHttp) -> Cluster:
    addresses = [Address.parse(endpoint) for endpoint in endpoints]
    literal = all(address.is_literal for address in addresses)
    return Cluster(
        name=name,
        type=ClusterDiscoveryType.STATIC if literal else ClusterDiscoveryType.STRICT_DNS,
        dns_lookup_family=ClusterDnsLookupFamily.AUTO if literal else ClusterDnsLookupFamily.V4_PREFERRED,
        connect_timeout=timedelta(seconds=1),
        per_connection_buffer_limit_bytes=BUFFER_BYTES,
        lb_policy=ClusterLbPolicy.LEAST_REQUEST,
        circuit_breakers=_circuit_breakers(),
        upstream_connection_options=UpstreamConnectionOptions(
            tcp_keepalive=TcpKeepalive(keepalive_time=30, keepalive_interval=10, keepalive_probes=3)
        ),
        typed_extension_protocol_options={_HTTP: Any.pack(http)},
        load_assignment=ClusterLoadAssignment(
            cluster_name=name,
            endpoints=[LocalityLbEndpoints(lb_endpoints=[_endpoint(address) for address in addresses])],
        ),
    )


def _endpoint(address: Address) -> LbEndpoint:
    return LbEndpoint(endpoint=Endpoint(address=envoy_address(address)))


def _circuit_breakers() -> CircuitBreakers:
    # Envoy's default of 1024 would answer the 1025th open lease with a 500.
    thresholds = CircuitBreakersThresholds(
        priority=RoutingPriority.DEFAULT,
        max_connections=_NO_LIMIT,
        max_pending_requests=_NO_LIMIT,
        max_requests=_NO_LIMIT,
        max_retries=_NO_LIMIT,
    )
    return CircuitBreakers(thresholds=[thresholds])


def _outlier_detection() -> OutlierDetection:
    # Only a host that cannot be reached is set aside: a model that answers 5xx is judged by Headgate, not by Envoy.
    return OutlierDetection(
        split_external_local_origin_errors=True,
        consecutive_local_origin_failure=5,
        enforcing_consecutive_local_origin_failure=100,
        enforcing_local_origin_success_rate=0,
        enforcing_consecutive_5xx=0,
        enforcing_consecutive_gateway_failure=0,
        enforcing_success_rate=0,
        interval=timedelta(seconds=5),
        base_ejection_time=timedelta(seconds=10),
        max_ejection_percent=50,
    )
