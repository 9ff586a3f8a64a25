"""The HTTP filters Headgate's services stand behind, each as Envoy's typed configuration; `listener` chains them."""

from __future__ import annotations

from datetime import timedelta

import betterproto2
from envoy_data_plane.envoy.config.common.mutation_rules.v3 import (
    HeaderMutation,
    HeaderMutationRemoveOnMatch,
    HeaderMutationRules,
)
from envoy_data_plane.envoy.config.core.v3 import (
    ApiVersion,
    GrpcService,
    GrpcServiceEnvoyGrpc,
    TypedExtensionConfig,
)
from envoy_data_plane.envoy.config.ratelimit.v3 import RateLimitServiceConfig
from envoy_data_plane.envoy.config.route.v3 import RateLimit as DescriptorEntry
from envoy_data_plane.envoy.config.route.v3 import (
    RateLimitAction,
    RateLimitActionGenericKey,
    RateLimitActionMetaData,
    RateLimitActionMetaDataSource,
    RateLimitActionRequestHeaders,
    RateLimitHitsAddend,
)
from envoy_data_plane.envoy.extensions.filters.http.ext_proc.v3 import (
    ExternalProcessor,
    ExtProcOverrides,
    ExtProcPerRoute,
    HeaderForwardingRules,
    MetadataOptions,
    MetadataOptionsMetadataNamespaces,
    ProcessingMode,
    ProcessingModeBodySendMode,
    ProcessingModeHeaderSendMode,
)
from envoy_data_plane.envoy.extensions.filters.http.ratelimit.v3 import (
    RateLimit,
    RateLimitXRateLimitHeadersRfcVersion,
)
from envoy_data_plane.envoy.extensions.filters.http.router.v3 import Router
from envoy_data_plane.envoy.extensions.filters.network.http_connection_manager.v3 import HttpFilter
from envoy_data_plane.envoy.extensions.http.early_header_mutation.header_mutation.v3 import (
    HeaderMutation as EarlyHeaderMutation,
)
from envoy_data_plane.envoy.type.matcher.v3 import ListStringMatcher, RegexMatcher, StringMatcher
from envoy_data_plane.envoy.type.metadata.v3 import MetadataKey, MetadataKeyPathSegment
from envoy_data_plane.envoy.type.v3 import HttpStatus, StatusCode
from envoy_data_plane.google.protobuf import Any

from headgate.policy.model import JwtIdentity, OnStoreFailure, Policy
from headgate_cli.render.clusters import EXTPROC, RATELIMIT
from headgate_cli.render.settings import EnvoySettings
from headgate_cli.render.timeouts import derive

METADATA = "headgate"
"""Namespace of the dynamic metadata ext_proc writes."""

CLUSTER_HEADER = "x-model-cluster"
HEADER_PREFIX = "x-headgate-"
EXT_PROC = "envoy.filters.http.ext_proc"

# What ext_proc may write: its stamps and, since Envoy holds a refusal's headers against the same list, those of a
# refusal. Envoy matches whole names and rejects an expression whose RE2 program is longer than 100 instructions.
WRITABLE_HEADERS = (
    "(x-(headgate|model|ratelimit|should)|(inference-header-)?content|(grpc-)?(accept|retry|www))-.*|:path"
)


def http_filter(name: str, config: betterproto2.Message) -> HttpFilter:
    """A filter of the chain under its usual name."""
    return HttpFilter(name=name, typed_config=Any.pack(config))


def grpc_service(cluster: str) -> GrpcService:
    """A gRPC service reached through one of our clusters."""
    return GrpcService(envoy_grpc=GrpcServiceEnvoyGrpc(cluster_name=cluster))


def spoofable_headers(policy: Policy) -> TypedExtensionConfig:
    """Removes, before any filter or route sees them, the headers that say who a client is and where it goes."""
    payloads = {source.payload_header for source in policy.identity if isinstance(source, JwtIdentity)}
    mutations = [HeaderMutation(remove=name) for name in (CLUSTER_HEADER, *sorted(payloads))]
    prefix = HeaderMutationRemoveOnMatch(key_matcher=StringMatcher(prefix=HEADER_PREFIX))
    return TypedExtensionConfig(
        name="envoy.http.early_header_mutation.header_mutation",
        typed_config=Any.pack(EarlyHeaderMutation(mutations=[*mutations, HeaderMutation(remove_on_match=prefix)])),
    )


def ext_proc(policy: Policy, settings: EnvoySettings) -> HttpFilter:
    """The decision. Its gRPC stream lives as long as the HTTP request, and that stream is the lease."""
    untyped = MetadataOptionsMetadataNamespaces(untyped=[METADATA])
    config = ExternalProcessor(
        grpc_service=grpc_service(EXTPROC),
        processing_mode=_lease_mode(ProcessingModeBodySendMode.BUFFERED),
        message_timeout=derive(policy, settings).message,
        status_on_error=HttpStatus(code=StatusCode.ServiceUnavailable),
        mutation_rules=HeaderMutationRules(disallow_all=True, allow_expression=RegexMatcher(regex=WRITABLE_HEADERS)),
        forward_rules=HeaderForwardingRules(
            disallowed_headers=ListStringMatcher(patterns=[StringMatcher(exact="cookie")])
        ),
        metadata_options=MetadataOptions(receiving_namespaces=untyped),
    )
    return http_filter(EXT_PROC, config)


def message_by_message() -> ExtProcPerRoute:
    """For a route of streams both ways: the client may wait for an answer before it says it has sent everything."""
    mode = _lease_mode(ProcessingModeBodySendMode.FULL_DUPLEX_STREAMED)
    # Envoy asks for the trailers with this mode.
    mode.request_trailer_mode = ProcessingModeHeaderSendMode.SEND
    return ExtProcPerRoute(overrides=ExtProcOverrides(processing_mode=mode))


def ratelimit(policy: Policy, settings: EnvoySettings) -> HttpFilter:
    """Requests and tokens per minute; has to stand after ext_proc, whose headers and metadata it charges."""
    config = RateLimit(
        domain="headgate",
        timeout=timedelta(seconds=settings.ratelimit_timeout_seconds),
        failure_mode_deny=policy.on_store_failure is OnStoreFailure.CLOSED,
        status_on_error=HttpStatus(code=StatusCode.ServiceUnavailable),
        rate_limited_as_resource_exhausted=True,
        enable_x_ratelimit_headers=RateLimitXRateLimitHeadersRfcVersion.DRAFT_VERSION_03,
        rate_limit_service=RateLimitServiceConfig(
            grpc_service=grpc_service(RATELIMIT), transport_api_version=ApiVersion.V3
        ),
        rate_limits=[_charge("requests"), _charge("tokens", "charged_tokens"), _request()],
    )
    return http_filter("envoy.filters.http.ratelimit", config)


def router() -> HttpFilter:
    """The end of the chain."""
    return http_filter("envoy.filters.http.router", Router(suppress_envoy_headers=True))


def _lease_mode(request_body: ProcessingModeBodySendMode) -> ProcessingMode:
    # Response headers are not sent, trailers are asked for: that keeps the stream open to the end of the response
    # at no cost per chunk. Without the trailers Envoy closes the stream of a body-less request once it is decided.
    return ProcessingMode(
        request_header_mode=ProcessingModeHeaderSendMode.SEND,
        request_body_mode=request_body,
        request_trailer_mode=ProcessingModeHeaderSendMode.SKIP,
        response_header_mode=ProcessingModeHeaderSendMode.SKIP,
        response_body_mode=ProcessingModeBodySendMode.NONE,
        response_trailer_mode=ProcessingModeHeaderSendMode.SEND,
    )


def _charge(limit: str, hits_key: str = "") -> DescriptorEntry:
    entry = DescriptorEntry(actions=[_tenant(), _constant("limit", limit)])
    if hits_key:
        entry.hits_addend = RateLimitHitsAddend(format=f"%DYNAMIC_METADATA({METADATA}:{hits_key})%")
    return entry


def _tenant() -> RateLimitAction:
    header = RateLimitActionRequestHeaders(header_name="x-headgate-tenant", descriptor_key="tenant")
    return RateLimitAction(request_headers=header)


def _constant(key: str, value: str) -> RateLimitAction:
    return RateLimitAction(generic_key=RateLimitActionGenericKey(descriptor_key=key, descriptor_value=value))


def _request() -> DescriptorEntry:
    # Never limited: it tells the service in which format to write a refusal, and whose end settles the tokens.
    return DescriptorEntry(actions=[_told("protocol"), _told("request_id")])


def _told(key: str) -> RateLimitAction:
    metadata = RateLimitActionMetaData(
        descriptor_key=key,
        metadata_key=MetadataKey(key=METADATA, path=[MetadataKeyPathSegment(key=key)]),
        source=RateLimitActionMetaDataSource.DYNAMIC,
        skip_if_absent=True,
    )
    return RateLimitAction(metadata=metadata)
