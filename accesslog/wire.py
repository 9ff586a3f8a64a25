"""Envoy's access log messages -> our records. The only module of this package that names a protobuf type."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import DecodeError
from google.protobuf.struct_pb2 import Struct, Value

from accesslog.ending import FLAG_NAMES, estimated_output_tokens, outcome
from headgate.pb import accesslog_pb2 as pb
from headgate.record import RequestRecord
from headgate.transport import RpcError, StatusCode

SERVICE_NAME = "envoy.service.accesslog.v3.AccessLogService"
_DECISION = "headgate"
_USAGE = "headgate.usage"
_RATE_LIMIT = "envoy.filters.http.ratelimit"
_FINISHED = (pb.NotSet, pb.DownstreamEnd)
_EVENT_STREAM = "text/event-stream"
FIRST_BODY_BYTE = "first_body_byte_us"
"""The rendered configuration's tag. Envoy's own fields tell when the headers came, which some servers send early."""
_TRACEPARENT = re.compile(r"[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")


def parse_records(message: bytes) -> Iterator[RequestRecord]:
    """The finished HTTP requests of a `StreamAccessLogsMessage`; entries of any other moment are left out.

    Raises:
        RpcError: INVALID_ARGUMENT when the bytes are not one.
    """
    try:
        logs = pb.StreamAccessLogsMessage.FromString(message)
    except DecodeError:
        raise RpcError(StatusCode.INVALID_ARGUMENT, "not a StreamAccessLogsMessage") from None
    return (_record(entry) for entry in logs.http_logs.log_entry if _is_finished(entry.common_properties))


def _is_finished(common: pb.AccessLogCommon) -> bool:
    return not common.intermediate_log_entry and common.access_log_type in _FINISHED


def _record(entry: pb.HTTPAccessLogEntry) -> RequestRecord:
    common, request, response = entry.common_properties, entry.request, entry.response
    known = common.metadata.filter_metadata
    decision, rate_limit = _fields(known, _DECISION), _fields(known, _RATE_LIMIT)
    # The filters that read usage read our own refusals as well.
    usage = _fields(known, _USAGE) if common.HasField("time_to_first_upstream_rx_byte") else {}
    # Rate limits come after the decision: their refusal is the last word.
    last_word = rate_limit if _text(rate_limit, "verdict") else decision
    verdict, cluster = _text(last_word, "verdict"), _text(decision, "cluster")
    status, details, flags = response.response_code.value, response.response_code_details, _flags(common)
    sent_seconds = _optional_seconds(common, "time_to_last_upstream_tx_byte")
    events, prompt, output = _reported(usage)
    estimated_prompt, charged = _count(decision, "prompt_tokens") or 0, _count(decision, "charged_tokens") or 0
    estimated_output = None
    if output is None and cluster and sent_seconds is not None and status < 400:
        most = max(0, charged - estimated_prompt)
        estimated_output = estimated_output_tokens(events, response.response_body_bytes, most)
    return RequestRecord(
        request_id=_text(decision, "request_id") or request.request_id,
        tenant=_text(decision, "tenant"),
        tier=_text(decision, "tier"),
        model=_text(decision, "model"),
        cluster=cluster,
        protocol=_text(decision, "protocol"),
        operation=_text(decision, "operation"),
        verdict=verdict,
        reason=_text(last_word, "reason"),
        status=status,
        details=details,
        duration_seconds=_duration_seconds(common),
        first_byte_seconds=_first_byte_seconds(common),
        queue_wait_seconds=_number(decision, "queue_wait_seconds") or 0.0,
        request_bytes=request.request_body_bytes,
        response_bytes=response.response_body_bytes,
        attempts=common.upstream_request_attempt_count,
        prompt_tokens=prompt,
        output_tokens=output,
        cached_tokens=_count(usage, "cached_tokens"),
        estimated_prompt_tokens=estimated_prompt,
        uncorrected_prompt_tokens=_count(decision, "uncorrected_prompt_tokens") or 0,
        charged_tokens=charged,
        estimated_output_tokens=estimated_output,
        outcome=outcome(
            verdict, status, details, flags, grpc_status=_grpc_status(response), has_usage=output is not None
        ),
        is_stream=events is not None or response.response_headers.get("content-type", "").startswith(_EVENT_STREAM),
        started_at=common.start_time.seconds + common.start_time.nanos / 1e9,
        upstream_sent_seconds=sent_seconds,
        last_byte_seconds=_optional_seconds(common, "time_to_last_upstream_rx_byte"),
        upstream_cluster=common.upstream_cluster,
        route=common.route_name,
        flags=flags,
        traceparent=_traceparent(request),
    )


def _grpc_status(response: pb.HTTPResponseProperties) -> str:
    return response.response_trailers.get("grpc-status") or response.response_headers.get("grpc-status", "")


def _fields(known: Mapping[str, Struct], namespace: str) -> Mapping[str, Value]:
    return known[namespace].fields if namespace in known else {}


def _reported(usage: Mapping[str, Value]) -> tuple[int | None, int | None, int | None]:
    """A stream's events, prompt and output tokens. Embeddings report a total and no output: it is none."""
    prompt, output, total = (_count(usage, name) for name in ("prompt_tokens", "completion_tokens", "total_tokens"))
    if output is None and prompt is not None and total is not None:
        output = max(0, total - prompt)
    return _count(usage, "stream_events"), prompt, output


def _duration_seconds(common: pb.AccessLogCommon) -> float:
    if common.HasField("duration"):
        return _seconds(common.duration)
    return _seconds(common.time_to_last_downstream_tx_byte)


def _first_byte_seconds(common: pb.AccessLogCommon) -> float | None:
    """When the body began, as the rendered configuration tags it; without the tag, when the response did."""
    tag = common.custom_tags.get(FIRST_BODY_BYTE)
    if tag is None:
        return _optional_seconds(common, "time_to_first_downstream_tx_byte")
    return int(tag) / 1e6 if tag.isascii() and tag.isdigit() else None


def _optional_seconds(common: pb.AccessLogCommon, name: str) -> float | None:
    return _seconds(getattr(common, name)) if common.HasField(name) else None


def _flags(common: pb.AccessLogCommon) -> tuple[str, ...]:
    if not common.HasField("response_flags"):
        return ()
    return tuple(FLAG_NAMES.get(field.name, field.name) for field, _ in common.response_flags.ListFields())


def _traceparent(request: pb.HTTPRequestProperties) -> str:
    text = request.request_headers.get("traceparent", "")
    return text if _TRACEPARENT.fullmatch(text) else ""


def _seconds(duration: Duration) -> float:
    return duration.seconds + duration.nanos / 1e9


def _text(fields: Mapping[str, Value], name: str) -> str:
    value = fields.get(name)
    return "" if value is None else value.string_value


def _number(fields: Mapping[str, Value], name: str) -> float | None:
    value = fields.get(name)
    return value.number_value if value is not None and value.HasField("number_value") else None


def _count(fields: Mapping[str, Value], name: str) -> int | None:
    value = _number(fields, name)
    return int(value) if value is not None and 0 <= value < 2**53 else None
