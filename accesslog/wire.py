"""Envoy's access log messages -> our records. The only module of this package that names a protobuf type."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import DecodeError
from google.protobuf.struct_pb2 import Value

from headgate.pb import accesslog_pb2 as pb
from headgate.record import RequestRecord
from headgate.transport import RpcError, StatusCode

SERVICE_NAME = "envoy.service.accesslog.v3.AccessLogService"
_DECISION = "headgate"
_USAGE = "headgate.usage"
_RATE_LIMIT = "envoy.filters.http.ratelimit"
_FINISHED = (pb.NotSet, pb.DownstreamEnd)


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
    decision: Mapping[str, Value] = known[_DECISION].fields if _DECISION in known else {}
    usage: Mapping[str, Value] = known[_USAGE].fields if _USAGE in known else {}
    rate_limit: Mapping[str, Value] = known[_RATE_LIMIT].fields if _RATE_LIMIT in known else {}
    # Rate limits come after the decision: their refusal is the last word.
    last_word = rate_limit if _text(rate_limit, "verdict") else decision
    return RequestRecord(
        request_id=_text(decision, "request_id") or request.request_id,
        tenant=_text(decision, "tenant"),
        tier=_text(decision, "tier"),
        model=_text(decision, "model"),
        cluster=_text(decision, "cluster"),
        protocol=_text(decision, "protocol"),
        operation=_text(decision, "operation"),
        verdict=_text(last_word, "verdict"),
        reason=_text(last_word, "reason"),
        status=response.response_code.value,
        details=response.response_code_details,
        duration_seconds=_duration_seconds(common),
        first_byte_seconds=_first_byte_seconds(common),
        queue_wait_seconds=_number(decision, "queue_wait_seconds") or 0.0,
        request_bytes=request.request_body_bytes,
        response_bytes=response.response_body_bytes,
        attempts=common.upstream_request_attempt_count,
        prompt_tokens=_count(usage, "prompt_tokens"),
        output_tokens=_count(usage, "completion_tokens"),
        cached_tokens=_count(usage, "cached_tokens"),
        estimated_prompt_tokens=_count(decision, "prompt_tokens") or 0,
        charged_tokens=_count(decision, "charged_tokens") or 0,
    )


def _duration_seconds(common: pb.AccessLogCommon) -> float:
    if common.HasField("duration"):
        return _seconds(common.duration)
    return _seconds(common.time_to_last_downstream_tx_byte)


def _first_byte_seconds(common: pb.AccessLogCommon) -> float | None:
    if not common.HasField("time_to_first_downstream_tx_byte"):
        return None
    return _seconds(common.time_to_first_downstream_tx_byte)


def _seconds(duration: Duration) -> float:
    return duration.seconds + duration.nanos / 1e9


def _text(fields: Mapping[str, Value], name: str) -> str:
    return fields[name].string_value if name in fields else ""


def _number(fields: Mapping[str, Value], name: str) -> float | None:
    if name not in fields or fields[name].WhichOneof("kind") != "number_value":
        return None
    return fields[name].number_value


def _count(fields: Mapping[str, Value], name: str) -> int | None:
    value = _number(fields, name)
    return int(value) if value is not None and 0 <= value < 2**53 else None
