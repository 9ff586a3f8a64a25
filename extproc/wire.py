"""Envoy's ext_proc messages <-> our events and replies. Total: any bytes Envoy can send have an event.

The only module of this package that names a protobuf type.
"""

from __future__ import annotations

from collections.abc import Mapping

from google.protobuf.message import DecodeError

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
)
from extproc.headers import Headers
from headgate.pb import ext_proc_pb2 as pb
from headgate.transport import RpcError, StatusCode

SERVICE_NAME = "envoy.service.ext_proc.v3.ExternalProcessor"
METADATA_NAMESPACE = "headgate"
_OVERWRITE = pb.HeaderValueOption.OVERWRITE_IF_EXISTS_OR_ADD


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
            return HeadersReceived(_headers(headers.headers), headers.end_of_stream)
        case "request_body":
            return BodyReceived(request.request_body.body, request.request_body.end_of_stream)
        case _:
            return OtherReceived(Phase(kind))


def build_response(reply: Reply) -> bytes:
    """Write the `ProcessingResponse` that answers one message."""
    match reply:
        case Continue(phase):
            return _CONTINUE[phase]
        case Forward():
            return _forward(reply)
        case Respond():
            return _respond(reply)


def _headers(headers: pb.HeaderMap) -> Headers:
    # Envoy fills raw_value; other callers of the protocol may fill value.
    return Headers(
        (header.key, header.raw_value.decode("utf-8", "replace") if header.raw_value else header.value)
        for header in headers.headers
    )


def _forward(forward: Forward) -> bytes:
    # Filled in place: a message built apart and copied in costs twice.
    response = pb.ProcessingResponse()
    phase = response.request_headers if forward.phase is Phase.REQUEST_HEADERS else response.request_body
    common = phase.response
    common.clear_route_cache = True
    _set_headers(common.header_mutation, forward.set_headers)
    if forward.body is not None:
        common.body_mutation.body = forward.body
    _set_metadata(response, forward.metadata)
    return response.SerializeToString()


def _respond(respond: Respond) -> bytes:
    response = pb.ProcessingResponse()
    immediate = response.immediate_response
    immediate.status.code = respond.status  # type: ignore[assignment]  # an enum of HTTP status codes
    immediate.body = respond.body
    immediate.grpc_status.status = respond.grpc_status
    immediate.details = respond.details
    _set_headers(immediate.headers, respond.headers)
    _set_metadata(response, respond.metadata)
    return response.SerializeToString()


def _set_headers(mutation: pb.HeaderMutation, headers: Mapping[str, str]) -> None:
    mutation.SetInParent()
    for name, value in headers.items():
        option = mutation.set_headers.add()
        option.header.key = name
        option.header.raw_value = value.encode()
        option.append_action = _OVERWRITE


def _set_metadata(response: pb.ProcessingResponse, metadata: Mapping[str, str | float]) -> None:
    if not metadata:
        return
    fields = response.dynamic_metadata.fields[METADATA_NAMESPACE].struct_value.fields
    for name, value in metadata.items():
        if isinstance(value, str):
            fields[name].string_value = value
        else:
            fields[name].number_value = value


def _continue(phase: Phase) -> bytes:
    response = pb.ProcessingResponse()
    getattr(response, phase.value).SetInParent()
    return response.SerializeToString()


_CONTINUE = {phase: _continue(phase) for phase in Phase}
