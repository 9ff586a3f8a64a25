"""Envoy's rate limit messages to our values and back; the only module here that names a protobuf type."""

from __future__ import annotations

from google.protobuf import json_format
from google.protobuf.message import DecodeError

from headgate.pb import ratelimit_pb2 as pb
from headgate.transport import RpcError, StatusCode
from ratelimit.limits import (
    UINT32_MAX,
    Algorithm,
    Code,
    Descriptor,
    Entry,
    Limit,
    RateLimitRequest,
    Status,
    Unit,
    Verdict,
)
from ratelimit.reply import Reply

_LONGEST_WINDOW_SECONDS = 100 * Unit.YEAR.seconds

_UNIT_NUMBERS = {
    Unit.SECOND: pb.RateLimitResponse.RateLimit.SECOND,
    Unit.MINUTE: pb.RateLimitResponse.RateLimit.MINUTE,
    Unit.HOUR: pb.RateLimitResponse.RateLimit.HOUR,
    Unit.DAY: pb.RateLimitResponse.RateLimit.DAY,
    Unit.WEEK: pb.RateLimitResponse.RateLimit.WEEK,
    Unit.MONTH: pb.RateLimitResponse.RateLimit.MONTH,
    Unit.YEAR: pb.RateLimitResponse.RateLimit.YEAR,
}
# An override's enum lacks WEEK and numbers the rest alike; the reference takes a bare 7 for it.
_UNITS = {int(number): unit for unit, number in _UNIT_NUMBERS.items()}

_CODE_NUMBERS = {Code.OK: pb.RateLimitResponse.OK, Code.OVER_LIMIT: pb.RateLimitResponse.OVER_LIMIT}


def decode_request(message: bytes) -> RateLimitRequest:
    """Read a RateLimitRequest.

    Raises:
        RpcError: INVALID_ARGUMENT; the bytes are no such message, or an override in it means nothing.
    """
    try:
        return _request(pb.RateLimitRequest.FromString(message))
    except DecodeError:
        raise RpcError(StatusCode.INVALID_ARGUMENT, "not a RateLimitRequest") from None


def decode_json_request(text: bytes) -> RateLimitRequest:
    """Read a RateLimitRequest in protobuf's JSON.

    Raises:
        RpcError: INVALID_ARGUMENT, as for `decode_request`.
    """
    try:
        return _request(json_format.Parse(text, pb.RateLimitRequest()))
    except (json_format.ParseError, ValueError, RecursionError):
        raise RpcError(StatusCode.INVALID_ARGUMENT, "not a RateLimitRequest in JSON") from None


def encode_response(verdict: Verdict, reply: Reply) -> bytes:
    """Write a RateLimitResponse; numbers beyond the API's 32 bits become its largest."""
    return bytes(_response(verdict, reply).SerializeToString())


def encode_json_response(verdict: Verdict, reply: Reply) -> bytes:
    """Write a RateLimitResponse in protobuf's JSON."""
    return json_format.MessageToJson(_response(verdict, reply), indent=None).encode()


def _request(message: pb.RateLimitRequest) -> RateLimitRequest:
    return RateLimitRequest(
        domain=message.domain,
        descriptors=tuple(_descriptor(descriptor) for descriptor in message.descriptors),
        hits_addend=message.hits_addend,
    )


def _descriptor(message: pb.RateLimitDescriptor) -> Descriptor:
    return Descriptor(
        entries=tuple(Entry(entry.key, entry.value) for entry in message.entries),
        hits_addend=message.hits_addend.value if message.HasField("hits_addend") else None,
        is_negative_hits=message.is_negative_hits,
        limit=_override(message.limit) if message.HasField("limit") else None,
    )


def _override(message: pb.RateLimitDescriptor.RateLimitOverride) -> Limit:
    unit = _UNITS.get(message.unit)
    if unit is None:
        raise RpcError(StatusCode.INVALID_ARGUMENT, f"invalid rate limit unit '{message.unit}' in an override")
    multiplier = message.unit_multiplier.value if message.HasField("unit_multiplier") else 1
    if not 0 < multiplier * unit.seconds <= _LONGEST_WINDOW_SECONDS:
        raise RpcError(StatusCode.INVALID_ARGUMENT, f"invalid rate limit unit multiplier '{multiplier}' in an override")
    return Limit(requests_per_unit=message.requests_per_unit, unit=unit, unit_multiplier=multiplier)


def _response(verdict: Verdict, reply: Reply) -> pb.RateLimitResponse:
    message = pb.RateLimitResponse(overall_code=_CODE_NUMBERS[verdict.code])
    for status in verdict.statuses:
        _fill_status(message.statuses.add(), status)
    message.raw_body = reply.body
    if reply.metadata:
        message.dynamic_metadata.update(reply.metadata)
    for key, value in reply.headers:
        message.response_headers_to_add.add(key=key, value=value)
    return message


def _fill_status(message: pb.RateLimitResponse.DescriptorStatus, status: Status) -> None:
    message.code = _CODE_NUMBERS[status.code]
    message.limit_remaining = min(status.remaining, UINT32_MAX)
    if status.limit is not None:
        message.current_limit.requests_per_unit = min(status.limit.requests_per_unit, UINT32_MAX)
        if status.limit.algorithm is not Algorithm.CONCURRENCY:
            message.current_limit.unit = _UNIT_NUMBERS[status.limit.unit]
        message.current_limit.name = status.limit.name
        if status.limit.unit_multiplier != 1:
            message.current_limit.unit_multiplier.value = status.limit.unit_multiplier
    if status.reset_whole_seconds is not None:
        message.duration_until_reset.seconds = status.reset_whole_seconds
