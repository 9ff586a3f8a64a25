"""What Envoy says when Envoy itself refuses or fails: JSON in the client's own error format.

Replies that Headgate's services wrote are JSON already and go out as they are.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

from envoy_data_plane.envoy.config.accesslog.v3 import (
    AccessLogFilter,
    AndFilter,
    ComparisonFilter,
    ComparisonFilterOp,
    ExtensionFilter,
    HeaderFilter,
    ResponseFlagFilter,
    StatusCodeFilter,
)
from envoy_data_plane.envoy.config.core.v3 import (
    DataSource,
    HeaderValue,
    HeaderValueOption,
    HeaderValueOptionHeaderAppendAction,
    RuntimeUInt32,
    SubstitutionFormatString,
)
from envoy_data_plane.envoy.config.route.v3 import HeaderMatcher
from envoy_data_plane.envoy.extensions.access_loggers.filters.cel.v3 import ExpressionFilter
from envoy_data_plane.envoy.extensions.filters.network.http_connection_manager.v3 import (
    LocalReplyConfig,
    ResponseMapper,
)
from envoy_data_plane.envoy.type.matcher.v3 import StringMatcher
from envoy_data_plane.google.protobuf import Any

TRITON_PATH = "/v2/"
ANTHROPIC_PATH = "/v1/messages"


@dataclass(frozen=True, slots=True)
class Reply:
    """One status Envoy may answer by itself; status 0 stands for any other."""

    status: int
    type: str
    code: str
    message: str
    retry_after_seconds: int | None = None


_REPLIES = (
    Reply(400, "invalid_request_error", "bad_request", "The request is not valid HTTP."),
    Reply(404, "invalid_request_error", "not_found", "No model is served at this path."),
    Reply(408, "invalid_request_error", "request_timeout", "The request did not arrive in time."),
    Reply(413, "invalid_request_error", "request_too_large", "The request body is too large."),
    Reply(431, "invalid_request_error", "headers_too_large", "The request headers are too large."),
    Reply(
        503,
        "service_unavailable_error",
        "service_unavailable",
        "The model or its gateway is not available right now.",
        1,
    ),
    Reply(504, "service_unavailable_error", "timeout", "No answer came in time."),
    Reply(0, "server_error", "gateway_error", "The gateway could not handle the request."),
)
_ANTHROPIC_TYPES = {
    400: "invalid_request_error",
    404: "not_found_error",
    413: "request_too_large",
    431: "invalid_request_error",
    503: "overloaded_error",
    504: "timeout_error",
}


def local_replies() -> LocalReplyConfig:
    """The mappers, tried in order: leave JSON and gRPC alone, then one per status and client format."""
    mappers = [_rate_limited(), ResponseMapper(filter=_speaks_grpc()), ResponseMapper(filter=_is_json())]
    for reply in _REPLIES:
        mappers.append(_mapper(reply, {"error": reply.message}, _path_begins(TRITON_PATH)))
        anthropic = {"type": _ANTHROPIC_TYPES.get(reply.status, "api_error"), "message": reply.message}
        mappers.append(_mapper(reply, {"type": "error", "error": anthropic}, _path_begins(ANTHROPIC_PATH)))
        error = {"message": reply.message, "type": reply.type, "param": None, "code": reply.code}
        mappers.append(_mapper(reply, {"error": error}))
    return LocalReplyConfig(mappers=mappers)


def _mapper(reply: Reply, body: object, *conditions: AccessLogFilter) -> ResponseMapper:
    headers = []
    if reply.retry_after_seconds is not None:
        retry_after = HeaderValue(key="retry-after", value=str(reply.retry_after_seconds))
        headers.append(HeaderValueOption(header=retry_after))
    return ResponseMapper(
        filter=_all(_has_status(reply.status), *conditions),
        body=DataSource(inline_string=json.dumps(body)),
        body_format_override=SubstitutionFormatString(
            text_format_source=DataSource(inline_string="%LOCAL_REPLY_BODY%"), content_type="application/json"
        ),
        headers_to_add=headers,
    )


def _all(*filters: AccessLogFilter) -> AccessLogFilter:
    return filters[0] if len(filters) == 1 else AccessLogFilter(and_filter=AndFilter(filters=list(filters)))


def _has_status(status: int) -> AccessLogFilter:
    # Envoy wants a runtime key with every status it compares; none of these is ever set.
    op = ComparisonFilterOp.EQ if status else ComparisonFilterOp.GE
    value = RuntimeUInt32(default_value=status or 400, runtime_key="headgate.local_reply.status")
    return AccessLogFilter(status_code_filter=StatusCodeFilter(comparison=ComparisonFilter(op=op, value=value)))


def _speaks_grpc() -> AccessLogFilter:
    # The text of the reply becomes the grpc-message; Envoy turns the status into gRPC's.
    kind = HeaderMatcher(name="content-type", string_match=StringMatcher(prefix="application/grpc"))
    return AccessLogFilter(header_filter=HeaderFilter(header=kind))


def _path_begins(prefix: str) -> AccessLogFilter:
    path = HeaderMatcher(name=":path", string_match=StringMatcher(prefix=prefix))
    return AccessLogFilter(header_filter=HeaderFilter(header=path))


def _rate_limited() -> ResponseMapper:
    # The route has set the decision ext_proc made before the rate limit was asked; the last word replaces it.
    value = "%DYNAMIC_METADATA(envoy.filters.http.ratelimit:decision)%"
    decision = HeaderValueOption(
        header=HeaderValue(key="x-headgate-decision", value=value),
        append_action=HeaderValueOptionHeaderAppendAction.OVERWRITE_IF_EXISTS_OR_ADD,
    )
    flag = AccessLogFilter(response_flag_filter=ResponseFlagFilter(flags=["RL"]))
    return ResponseMapper(filter=flag, headers_to_add=[decision])


def _is_json() -> AccessLogFilter:
    expression = 'response.headers["content-type"].startsWith("application/json")'
    cel = ExtensionFilter(
        name="envoy.access_loggers.extension_filters.cel",
        typed_config=Any.pack(ExpressionFilter(expression=expression)),
    )
    return AccessLogFilter(extension_filter=cel)
