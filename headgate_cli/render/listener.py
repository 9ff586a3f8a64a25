"""The listener: an HTTP connection manager safe to put at the edge, and the filter chain in its order."""

from __future__ import annotations

from datetime import timedelta

from envoy_data_plane.envoy.config.accesslog.v3 import AccessLog
from envoy_data_plane.envoy.config.core.v3 import (
    ApiVersion,
    Http2ProtocolOptions,
    HttpProtocolOptions,
    HttpProtocolOptionsHeadersWithUnderscoresAction,
)
from envoy_data_plane.envoy.config.listener.v3 import Filter, FilterChain, Listener
from envoy_data_plane.envoy.extensions.access_loggers.grpc.v3 import (
    CommonGrpcAccessLogConfig,
    HttpGrpcAccessLogConfig,
)
from envoy_data_plane.envoy.extensions.filters.network.http_connection_manager.v3 import (
    HttpConnectionManager,
    HttpConnectionManagerForwardClientCertDetails,
    HttpConnectionManagerPathWithEscapedSlashesAction,
    HttpConnectionManagerSetCurrentClientCertDetails,
    HttpFilter,
)
from envoy_data_plane.envoy.type.tracing.v3 import CustomTag
from envoy_data_plane.google.protobuf import Any

from headgate.policy.model import Policy
from headgate_cli.render import filters, usage
from headgate_cli.render.clusters import ACCESSLOG, BUFFER_BYTES, envoy_address
from headgate_cli.render.replies import local_replies
from headgate_cli.render.routes import route_configuration
from headgate_cli.render.settings import Address, EnvoySettings
from headgate_cli.render.timeouts import derive

FIRST_BODY_BYTE = "first_body_byte_us"
"""Tag of a record: when the first byte of the model server's body came. Envoy's own fields say when its headers came,
which some servers send at once."""
_FIRST_BODY_BYTE = "%COMMON_DURATION(DS_RX_BEG:US_RX_BODY_BEG:us)%"


def listener(policy: Policy, settings: EnvoySettings) -> Listener:
    """The one listener clients connect to."""
    manager = Filter(
        name="envoy.filters.network.http_connection_manager",
        typed_config=Any.pack(_connection_manager(policy, settings)),
    )
    return Listener(
        name="headgate",
        address=envoy_address(Address.parse(settings.listen)),
        per_connection_buffer_limit_bytes=BUFFER_BYTES,
        filter_chains=[FilterChain(filters=[manager])],
    )


def _connection_manager(policy: Policy, settings: EnvoySettings) -> HttpConnectionManager:
    timeouts = derive(policy, settings)
    return HttpConnectionManager(
        stat_prefix="headgate",
        use_remote_address=True,
        forward_client_cert_details=HttpConnectionManagerForwardClientCertDetails.SANITIZE_SET,
        set_current_client_cert_details=HttpConnectionManagerSetCurrentClientCertDetails(uri=True),
        always_set_request_id_in_response=True,
        normalize_path=True,
        merge_slashes=True,
        path_with_escaped_slashes_action=HttpConnectionManagerPathWithEscapedSlashesAction.UNESCAPE_AND_REDIRECT,
        max_request_headers_kb=32,
        request_headers_timeout=timedelta(seconds=10),
        request_timeout=timeouts.request,
        stream_idle_timeout=timeouts.stream_idle,
        delayed_close_timeout=timedelta(seconds=1),
        common_http_protocol_options=HttpProtocolOptions(
            idle_timeout=timedelta(hours=1),
            max_headers_count=100,
            headers_with_underscores_action=HttpProtocolOptionsHeadersWithUnderscoresAction.REJECT_REQUEST,
        ),
        http2_protocol_options=Http2ProtocolOptions(
            max_concurrent_streams=100,
            initial_stream_window_size=64 * 1024,
            initial_connection_window_size=1024 * 1024,
        ),
        early_header_mutation_extensions=[filters.spoofable_headers(policy)],
        http_filters=_filter_chain(policy, settings),
        route_config=route_configuration(policy, timeouts),
        local_reply_config=local_replies(),
        access_log=[_access_log(settings)],
    )


def _filter_chain(policy: Policy, settings: EnvoySettings) -> list[HttpFilter]:
    return [
        filters.ext_proc(policy, settings),
        filters.ratelimit(policy, settings),
        usage.json_usage(),
        *([usage.sse_usage(), usage.event_count()] if settings.stream_usage else []),
        filters.router(),
    ]


def _access_log(settings: EnvoySettings) -> AccessLog:
    common = CommonGrpcAccessLogConfig(
        log_name="headgate",
        transport_api_version=ApiVersion.V3,
        grpc_service=filters.grpc_service(ACCESSLOG),
        buffer_flush_interval=timedelta(seconds=settings.accesslog_flush_seconds),
        buffer_size_bytes=16 * 1024,
        custom_tags=[CustomTag(tag=FIRST_BODY_BYTE, value=_FIRST_BODY_BYTE)],
    )
    return AccessLog(
        name="envoy.access_loggers.http_grpc",
        typed_config=Any.pack(
            HttpGrpcAccessLogConfig(
                common_config=common,
                additional_request_headers_to_log=["traceparent"],
                # A gRPC answer that is an error from the start has its status among the headers.
                additional_response_headers_to_log=["content-type", "grpc-status"],
                additional_response_trailers_to_log=["grpc-status"],
            )
        ),
    )
