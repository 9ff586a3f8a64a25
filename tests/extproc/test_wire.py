"""Envoy's messages read and written: every kind has an event, and every reply says what was meant."""

from __future__ import annotations

from typing import Any

import pytest
from google.protobuf.json_format import MessageToDict
from hypothesis import given, settings
from hypothesis import strategies as st

from extproc.dynamic_metadata import dynamic_metadata
from extproc.events import (
    BodyReceived,
    Continue,
    Decision,
    Forward,
    HeadersReceived,
    OtherReceived,
    Phase,
    Reply,
    Respond,
    SendBody,
    Verdict,
)
from extproc.wire import build_response, parse_request
from headgate.pb import ext_proc_pb2 as pb
from headgate.transport import RpcError, StatusCode

DECISION = Decision(request_id="r-1", verdict=Verdict.ADMIT, reason="", status=200)


def headers_message(*headers: pb.HeaderValue, is_end: bool = False) -> bytes:
    http = pb.HttpHeaders(headers=pb.HeaderMap(headers=headers), end_of_stream=is_end)
    return pb.ProcessingRequest(request_headers=http).SerializeToString()


def written(reply: Reply) -> dict[str, Any]:
    response: dict[str, Any] = MessageToDict(
        pb.ProcessingResponse.FromString(build_response(reply)), preserving_proto_field_name=True
    )
    return response


# read


@pytest.mark.parametrize("is_end", [False, True])
def test_headers_are_read_by_raw_value_or_value_in_any_case(is_end: bool) -> None:
    message = headers_message(
        pb.HeaderValue(key=":path", raw_value=b"/v1/models"),
        pb.HeaderValue(key="X-Plain", value="v"),
        pb.HeaderValue(key="x-both", value="ignored", raw_value=b"raw"),
        pb.HeaderValue(key="X-Twice", raw_value=b"1"),
        pb.HeaderValue(key="x-twice", value="2"),
        pb.HeaderValue(key="x-empty"),
        pb.HeaderValue(key="x-bytes", raw_value=b"a\xffb"),
        is_end=is_end,
    )

    event = parse_request(message)

    assert isinstance(event, HeadersReceived)
    assert event.is_end is is_end
    names = (":path", "x-plain", "x-both", "x-twice", "x-empty", "x-bytes")
    assert [event.headers.get(name) for name in names] == ["/v1/models", "v", "raw", "1,2", "", "a\ufffdb"]


@pytest.mark.parametrize(
    ("mode", "is_duplex", "is_buffered"),
    [
        ("NONE", False, False),
        ("BUFFERED", False, True),
        ("BUFFERED_PARTIAL", False, False),
        ("STREAMED", False, False),
        ("FULL_DUPLEX_STREAMED", True, False),
    ],
)
def test_the_first_message_tells_whether_the_body_comes_in_pieces(
    mode: str, is_duplex: bool, is_buffered: bool
) -> None:
    request = pb.ProcessingRequest.FromString(headers_message())
    request.protocol_config.request_body_mode = pb.ProcessingMode.BodySendMode.Value(mode)

    event = parse_request(request.SerializeToString())

    assert isinstance(event, HeadersReceived)
    assert (event.is_duplex, event.is_buffered) == (is_duplex, is_buffered)


@pytest.mark.parametrize(("body", "is_end"), [(b"", True), (b"\x00\xff{}", True), (b"part", False)])
def test_a_body_is_read_as_its_bytes(body: bytes, is_end: bool) -> None:
    request = pb.ProcessingRequest(request_body=pb.HttpBody(body=body, end_of_stream=is_end))

    assert parse_request(request.SerializeToString()) == BodyReceived(body, is_end)


@pytest.mark.parametrize(
    "phase", [Phase.REQUEST_TRAILERS, Phase.RESPONSE_HEADERS, Phase.RESPONSE_BODY, Phase.RESPONSE_TRAILERS]
)
def test_every_other_phase_is_an_event_that_decides_nothing(phase: Phase) -> None:
    request = pb.ProcessingRequest()
    getattr(request, phase.value).SetInParent()

    assert parse_request(request.SerializeToString()) == OtherReceived(phase)


def test_what_envoy_adds_to_a_message_is_no_hindrance() -> None:
    request = pb.ProcessingRequest(
        request_body=pb.HttpBody(body=b"{}", end_of_stream=True),
        observability_mode=True,
        protocol_config=pb.ProtocolConfiguration(request_body_mode=pb.ProcessingMode.BUFFERED),
    )
    request.attributes["envoy.filters.http.ext_proc"].update({"request.path": "/"})
    request.metadata_context.filter_metadata["x"].update({"a": 1})
    unknown_field = b"\xf2\x7d\x03abc"

    assert parse_request(request.SerializeToString() + unknown_field) == BodyReceived(b"{}", is_end=True)


@pytest.mark.parametrize(
    ("message", "details"),
    [
        (b"", "an empty ProcessingRequest"),
        (pb.ProcessingRequest(observability_mode=True).SerializeToString(), "an empty ProcessingRequest"),
        (b"\xff\xff\xff", "not a ProcessingRequest"),
        (b"\x12\x7f", "not a ProcessingRequest"),
        (b"GET / HTTP/1.1\r\n", "not a ProcessingRequest"),
        (b"\x12\x08\x0a\x06\x0a\x04\x0a\x02\xff\xfe", "not a ProcessingRequest"),
    ],
    ids=["nothing", "no phase", "garbage", "cut short", "another protocol", "a name that is not UTF-8"],
)
def test_a_message_that_says_nothing_is_an_invalid_argument(message: bytes, details: str) -> None:
    with pytest.raises(RpcError) as raised:
        parse_request(message)

    assert (raised.value.code, raised.value.message) == (StatusCode.INVALID_ARGUMENT, details)


@settings(deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_are_an_event_or_an_invalid_argument(message: bytes) -> None:
    try:
        event = parse_request(message)
    except RpcError as error:
        code = error.code
    else:
        code = (
            StatusCode.OK if isinstance(event, HeadersReceived | BodyReceived | OtherReceived) else StatusCode.UNKNOWN
        )
    assert code in (StatusCode.OK, StatusCode.INVALID_ARGUMENT)


# written


@pytest.mark.parametrize("phase", Phase)
def test_continue_answers_in_the_phase_it_was_asked_in_and_changes_nothing(phase: Phase) -> None:
    assert written(Continue(phase)) == {phase.value: {}}


@pytest.mark.parametrize("phase", [Phase.REQUEST_HEADERS, Phase.REQUEST_BODY])
def test_forward_overwrites_headers_and_routes_anew(phase: Phase) -> None:
    forward = Forward(
        phase=phase,
        set_headers={"x-model-cluster": "best", ":path": "/v2/models/\u00e9"},
    )

    response = pb.ProcessingResponse.FromString(build_response(forward))

    common = getattr(response, phase.value).response
    assert [(o.header.key, o.header.raw_value, o.append_action) for o in common.header_mutation.set_headers] == [
        ("x-model-cluster", b"best", pb.HeaderValueOption.OVERWRITE_IF_EXISTS_OR_ADD),
        (":path", "/v2/models/\u00e9".encode(), pb.HeaderValueOption.OVERWRITE_IF_EXISTS_OR_ADD),
    ]
    assert common.clear_route_cache
    assert not common.HasField("body_mutation")
    assert not response.HasField("dynamic_metadata")


@pytest.mark.parametrize("body", [b"", b"x" * 127, b"y" * 20_000, b"z" * 3_000_000, b'{"model":"llama"}', b"\x00\xff"])
def test_a_new_body_is_written_whole_and_never_streamed(body: bytes) -> None:
    response = pb.ProcessingResponse.FromString(build_response(Forward(phase=Phase.REQUEST_BODY, body=body)))

    mutation = response.request_body.response.body_mutation
    assert mutation.WhichOneof("mutation") == "body"
    assert mutation.body == body


def test_respond_is_an_immediate_response_with_everything_a_client_needs() -> None:
    respond = Respond(
        status=429,
        headers={"retry-after": "2"},
        body=b'{"error":{}}',
        grpc_status=StatusCode.RESOURCE_EXHAUSTED,
        details="headgate_queue_full",
    )

    assert written(respond) == {
        "immediate_response": {
            "status": {"code": "TooManyRequests"},
            "headers": {
                "set_headers": [
                    {
                        "header": {"key": "retry-after", "raw_value": "Mg=="},
                        "append_action": "OVERWRITE_IF_EXISTS_OR_ADD",
                    }
                ]
            },
            "body": "eyJlcnJvciI6e319",
            "grpc_status": {"status": 8},
            "details": "headgate_queue_full",
        },
    }


@pytest.mark.parametrize(
    "reply",
    [
        Forward(phase=Phase.REQUEST_BODY, decision=DECISION),
        Respond(status=429, headers={}, body=b"", grpc_status=StatusCode.OK, details="d", decision=DECISION),
    ],
    ids=["forward", "respond"],
)
def test_a_reply_that_decides_says_so_and_how_long_it_took(reply: Forward | Respond) -> None:
    response = pb.ProcessingResponse.FromString(build_response(reply, 0.00042))

    told = pb.ProcessingResponse.FromString(dynamic_metadata(DECISION, 0.00042))
    assert response.dynamic_metadata == told.dynamic_metadata
    assert response.WhichOneof("response") is not None


@pytest.mark.parametrize("status", [200, 400, 401, 404, 413, 415, 429, 503])
def test_every_status_is_one_envoy_knows(status: int) -> None:
    respond = Respond(status=status, headers={}, body=b"", grpc_status=StatusCode.OK, details="d")

    response = pb.ProcessingResponse.FromString(build_response(respond))

    assert response.immediate_response.status.code == status
    assert pb.StatusCode.Name(response.immediate_response.status.code)


@pytest.mark.parametrize(("body", "is_end"), [(b"", True), (b"\0\0", False), (b"x" * 100_000, True)])
def test_a_piece_of_a_body_is_sent_on(body: bytes, is_end: bool) -> None:
    response = pb.ProcessingResponse.FromString(build_response(SendBody(body, is_end)))

    streamed = response.request_body.response.body_mutation.streamed_response
    assert (streamed.body, streamed.end_of_stream) == (body, is_end)


def test_a_header_that_does_not_go_on_is_named() -> None:
    reply = Forward(phase=Phase.REQUEST_BODY, set_headers={"x-a": "1"}, remove_headers=("content-encoding",))
    mutation = pb.ProcessingResponse.FromString(build_response(reply)).request_body.response.header_mutation

    assert list(mutation.remove_headers) == ["content-encoding"]
    assert [option.header.key for option in mutation.set_headers] == ["x-a"]
