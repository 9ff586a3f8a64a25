"""Envoy's ext_proc messages <-> our events and replies. Total: any bytes Envoy can send have an event.

Only this module and those it builds on name protobuf types.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from itertools import starmap

from google.protobuf.message import DecodeError

from extproc.bodies import read_body
from extproc.dynamic_metadata import dynamic_metadata
from extproc.events import (
    BodyReceived,
    Continue,
    Decision,
    Event,
    Forward,
    OtherReceived,
    Phase,
    Reply,
    Respond,
    SendBody,
)
from extproc.heads import headers_received, read_head
from extproc.wire_format import head, tag_of
from headgate.pb import ext_proc_pb2 as pb
from headgate.transport import RpcError, StatusCode

SERVICE_NAME = "envoy.service.ext_proc.v3.ExternalProcessor"


def parse_request(message: bytes) -> Event:
    """Read a `ProcessingRequest`.

    Raises:
        RpcError: INVALID_ARGUMENT when the bytes are not one, or it says nothing.
    """
    if (usual := read_head(message) or read_body(message)) is not None:
        return usual
    try:
        request = pb.ProcessingRequest.FromString(message)
    except DecodeError:
        raise RpcError(StatusCode.INVALID_ARGUMENT, "not a ProcessingRequest") from None
    kind = request.WhichOneof("request")
    match kind:
        case None:
            raise RpcError(StatusCode.INVALID_ARGUMENT, "an empty ProcessingRequest")
        case "request_headers":
            return headers_received(request)
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
            return _with_decision(_forward(reply), reply.decision, decision_seconds)
        case SendBody(body, is_end):
            return _send_body(body, is_end=is_end)
        case Respond():
            return _with_decision(_respond(reply), reply.decision, decision_seconds)


def _with_decision(response: bytes, decision: Decision | None, decision_seconds: float) -> bytes:
    return response if decision is None else response + dynamic_metadata(decision, decision_seconds)


def _forward(forward: Forward) -> bytes:
    mutation, body = _header_options(forward.set_headers), forward.body
    if forward.remove_headers:
        mutation += pb.HeaderMutation(remove_headers=forward.remove_headers).SerializeToString()
    before, after = head(_HEADER_MUTATION, len(mutation)) + mutation, _CLEAR_ROUTE_CACHE
    if body is None:
        return head(_COMMON[forward.phase], len(before) + len(after)) + before + after
    before += head(_BODY, len(body))
    # Joined once: each step on the way would copy a body that may be long.
    return b"".join((head(_COMMON[forward.phase], len(before) + len(body) + len(after)), before, body, after))


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


def _header_options(headers: Mapping[str, str]) -> bytes:
    return b"".join(starmap(_header_option, headers.items()))


@functools.lru_cache(maxsize=4096)
def _header_option(name: str, value: str) -> bytes:
    header = pb.HeaderValue(key=name, raw_value=value.encode())
    option = pb.HeaderValueOption(header=header, append_action=pb.HeaderValueOption.OVERWRITE_IF_EXISTS_OR_ADD)
    return pb.HeaderMutation(set_headers=[option]).SerializeToString()


_COMMON = {phase: (tag_of(pb.ProcessingResponse, phase), tag_of(pb.HeadersResponse, "response")) for phase in Phase}
_HEADER_MUTATION = (tag_of(pb.CommonResponse, "header_mutation"),)
_BODY = (tag_of(pb.CommonResponse, "body_mutation"), tag_of(pb.BodyMutation, "body"))
_CLEAR_ROUTE_CACHE = pb.CommonResponse(clear_route_cache=True).SerializeToString()


def _continue(phase: Phase) -> bytes:
    response = pb.ProcessingResponse()
    getattr(response, phase.value).SetInParent()
    return response.SerializeToString()


_CONTINUE = {phase: _continue(phase) for phase in Phase}
