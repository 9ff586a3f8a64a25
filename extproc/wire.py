"""Envoy's ext_proc messages <-> our events and replies. Total: any bytes Envoy can send have an event.

The only module of this package that names a protobuf type.
"""

from __future__ import annotations

import functools
import struct
from collections.abc import Mapping

from google.protobuf.message import DecodeError, Message
from google.protobuf.struct_pb2 import Struct, Value

from extproc.events import (
    BodyReceived,
    Continue,
    Event,
    Forward,
    HeadersReceived,
    OtherReceived,
    Phase,
    Reply,
    Respond,
    SendBody,
)
from extproc.headers import Headers
from headgate.pb import ext_proc_pb2 as pb
from headgate.transport import RpcError, StatusCode

SERVICE_NAME = "envoy.service.ext_proc.v3.ExternalProcessor"
METADATA_NAMESPACE = "headgate"
_FULL_DUPLEX = pb.ProcessingMode.FULL_DUPLEX_STREAMED


def parse_request(message: bytes) -> Event:
    """Read a `ProcessingRequest`.

    Raises:
        RpcError: INVALID_ARGUMENT when the bytes are not one, or it says nothing.
    """
    try:
        request = pb.ProcessingRequest.FromString(message)
    except DecodeError:
        raise RpcError(StatusCode.INVALID_ARGUMENT, "not a ProcessingRequest") from None
    kind = request.WhichOneof("request")
    match kind:
        case None:
            raise RpcError(StatusCode.INVALID_ARGUMENT, "an empty ProcessingRequest")
        case "request_headers":
            headers = request.request_headers
            # Only the first message of a stream says in which mode Envoy sends the body.
            is_duplex = request.protocol_config.request_body_mode == _FULL_DUPLEX
            return HeadersReceived(_headers(headers.headers), headers.end_of_stream, is_duplex)
        case "request_body":
            body = request.request_body
            return BodyReceived(body.body, body.end_of_stream)
        case _:
            return OtherReceived(Phase(kind))


def build_response(reply: Reply, decision_seconds: float = 0.0) -> bytes:
    """Write the `ProcessingResponse` that answers one message; a decision says how long it took."""
    match reply:
        case Continue(phase):
            return _CONTINUE[phase]
        case Forward():
            return _forward(reply) + _dynamic_metadata(reply.metadata, decision_seconds)
        case SendBody(body, is_end):
            return _send_body(body, is_end=is_end)
        case Respond():
            return _respond(reply) + _dynamic_metadata(reply.metadata, decision_seconds)


def _headers(headers: pb.HeaderMap) -> Headers:
    # Envoy fills raw_value; other callers of the protocol may fill value.
    return Headers(
        [
            (header.key, raw.decode("utf-8", "replace") if (raw := header.raw_value) else header.value)
            for header in headers.headers
        ]
    )


def _forward(forward: Forward) -> bytes:
    mutation = _header_options(forward.set_headers)
    if forward.remove_headers:
        mutation += pb.HeaderMutation(remove_headers=forward.remove_headers).SerializeToString()
    common = _nested(_HEADER_MUTATION, mutation)
    if forward.body is not None:
        common += _nested(_BODY_MUTATION, _nested(_NEW_BODY, forward.body))
    return _nested(_PHASES[forward.phase], _nested(_COMMON, common + _CLEAR_ROUTE_CACHE))


def _send_body(body: bytes, *, is_end: bool) -> bytes:
    response = pb.ProcessingResponse()
    streamed = response.request_body.response.body_mutation.streamed_response
    streamed.body = body
    streamed.end_of_stream = is_end
    return response.SerializeToString()


def _respond(respond: Respond) -> bytes:
    response = pb.ProcessingResponse()
    immediate = response.immediate_response
    immediate.status.code = respond.status  # type: ignore[assignment]  # an enum of HTTP status codes
    immediate.body = respond.body
    immediate.grpc_status.status = respond.grpc_status
    immediate.details = respond.details
    immediate.headers.MergeFromString(_header_options(respond.headers))
    return response.SerializeToString()


# A reply is mostly the same few headers and words: they are serialised once, and put together as bytes.


def _header_options(headers: Mapping[str, str]) -> bytes:
    return b"".join([_header_option(name, value) for name, value in headers.items()])


@functools.lru_cache(maxsize=4096)
def _header_option(name: str, value: str) -> bytes:
    header = pb.HeaderValue(key=name, raw_value=value.encode())
    option = pb.HeaderValueOption(header=header, append_action=pb.HeaderValueOption.OVERWRITE_IF_EXISTS_OR_ADD)
    return pb.HeaderMutation(set_headers=[option]).SerializeToString()


def _dynamic_metadata(metadata: Mapping[str, str | float], decision_seconds: float) -> bytes:
    if not metadata:
        return b""
    fields = [_server_timing(metadata.get("queue_wait_seconds", 0.0), decision_seconds)]
    for name, value in metadata.items():
        if not isinstance(value, str):
            fields.append(_number_field(name) + _DOUBLE.pack(value))
        elif name == "request_id":
            # No other request has it: kept, it would only push out what many have.
            fields.append(_text_field(name, value))
        else:
            fields.append(_common_text_field(name, value))
    namespace = _NAMESPACE_NAME + _nested(_MAP_VALUE, _nested(_STRUCT_VALUE, b"".join(fields)))
    return _nested(_DYNAMIC_METADATA, _nested(_STRUCT_FIELDS, namespace))


def _server_timing(wait_seconds: str | float, decision_seconds: float) -> bytes:
    """The value of the client's `server-timing` header (https://www.w3.org/TR/server-timing/), in milliseconds."""
    text = b"hg-queue;dur=%.1f, hg-decide;dur=%.2f" % (float(wait_seconds) * 1e3, decision_seconds * 1e3)
    return _nested(_STRUCT_FIELDS, _SERVER_TIMING_NAME + _nested(_MAP_VALUE, _nested(_STRING_VALUE, text)))


def _text_field(name: str, value: str) -> bytes:
    text = _nested(_MAP_VALUE, _nested(_STRING_VALUE, value.encode()))
    return _nested(_STRUCT_FIELDS, _nested(_MAP_KEY, name.encode()) + text)


_common_text_field = functools.lru_cache(maxsize=4096)(_text_field)


@functools.lru_cache(maxsize=64)
def _number_field(name: str) -> bytes:
    """A number's field but for the eight bytes of the number itself, which come last."""
    return Struct(fields={name: Value(number_value=0.0)}).SerializeToString()[: -_DOUBLE.size]


def _nested(tag: bytes, payload: bytes) -> bytes:
    """A length-delimited field (https://protobuf.dev/programming-guides/encoding/)."""
    size = len(payload)
    if size <= 0x7F:
        return tag + _SHORT[size] + payload
    if size <= 0x3FFF:
        return tag + bytes((size & 0x7F | 0x80, size >> 7)) + payload
    length = bytearray()
    while size > 0x7F:
        length.append(size & 0x7F | 0x80)
        size >>= 7
    length.append(size)
    return tag + length + payload


def _tag(message: type[Message], field: str) -> bytes:
    return bytes([message.DESCRIPTOR.fields_by_name[field].number << 3 | 2])


_SHORT = [bytes([size]) for size in range(0x80)]
_DOUBLE = struct.Struct("<d")
_PHASES = {phase: _tag(pb.ProcessingResponse, phase) for phase in Phase}
_COMMON = _tag(pb.HeadersResponse, "response")
_HEADER_MUTATION = _tag(pb.CommonResponse, "header_mutation")
_BODY_MUTATION = _tag(pb.CommonResponse, "body_mutation")
_CLEAR_ROUTE_CACHE = pb.CommonResponse(clear_route_cache=True).SerializeToString()
_NEW_BODY = _tag(pb.BodyMutation, "body")
_DYNAMIC_METADATA = _tag(pb.ProcessingResponse, "dynamic_metadata")
_STRUCT_FIELDS = _tag(Struct, "fields")
_STRUCT_VALUE = _tag(Value, "struct_value")
_STRING_VALUE = _tag(Value, "string_value")
_MAP_VALUE = _tag(Struct.FieldsEntry, "value")
_MAP_KEY = _tag(Struct.FieldsEntry, "key")
_SERVER_TIMING_NAME = _nested(_MAP_KEY, b"server_timing")
_NAMESPACE_NAME = _nested(_MAP_KEY, METADATA_NAMESPACE.encode())


def _continue(phase: Phase) -> bytes:
    response = pb.ProcessingResponse()
    getattr(response, phase.value).SetInParent()
    return response.SerializeToString()


_CONTINUE = {phase: _continue(phase) for phase in Phase}
