"""KServe gRPC and compressed bodies through the exchange, as transcripts."""

from __future__ import annotations

import gzip
import json
import struct
from typing import Any

import pytest
from tritonclient.grpc import service_pb2 as triton

from extproc.affinity import AFFINITY_HEADER, AffinityNames
from extproc.answers import SIDECAR_CLUSTER
from extproc.events import (
    AcquireLease,
    BodyReceived,
    Continue,
    Effect,
    Forward,
    HeadersReceived,
    JoinQueue,
    LeaseGranted,
    LeaseRefused,
    OtherReceived,
    Phase,
    ReleaseLease,
    Report,
    Respond,
    SendBody,
    StreamEnded,
    TurnedAway,
)
from extproc.exchange import Exchange
from extproc.headers import Headers
from extproc.inspection.grpc_frames import framed
from headgate.policy.load import load_policy
from headgate.policy.model import Affinity, Policy
from headgate.store import Lease, LeaseRequest, Scope
from headgate.transport import StatusCode

SERVICE = "/inference.GRPCInferenceService"
LEASE = Lease(1, LeaseRequest(tenant="acme", tier="premium"), 0.0)
POLICY = b"""
apiVersion: headgate/v1
identity: [{anonymous: {tenant: acme}}]
tenants: {acme: {tier: premium}}
tiers:
  premium:
    priority: 0
    queue: {max_wait: 2s, max_depth: 2}
    on_overload: [queue, reject]
    output_tokens: {default: 64, max: 1200}
    max_body: 64KiB
models:
  assistant: {routes: [{cluster: best, max_output_tokens: 100}]}
  sentiment: {routes: [{cluster: sentiment}]}
  chat: {routes: [{cluster: chat}]}
  cool: {routes: [{cluster: cool, overrides: {temperature: 0.5, stop: [x]}}]}
  same: {routes: [{cluster: same, overrides: {temperature: 0.5}}]}
clusters:
  best: {protocol: triton, model: ensemble, endpoints: ["h:8000"], grpc_endpoints: ["h:8001"], affinity: session}
  sentiment: {protocol: triton, model: sentiment, endpoints: ["h:8000"], grpc_endpoints: ["h:8001"]}
  chat: {protocol: openai, model: llama, endpoints: ["h:8010"]}
  same: {protocol: triton, model: same, endpoints: ["h:8000"], grpc_endpoints: ["h:8001"]}
  cool:
    protocol: triton
    model: ensemble
    endpoints: ["h:8000"]
    grpc_endpoints: ["h:8001"]
    backend: triton
    send_priority: true
    priority_levels: 3
"""


@pytest.fixture(scope="module")
def grpc_policy() -> Policy:
    return load_policy(POLICY, "policy.yaml")


@pytest.fixture
def exchange(grpc_policy: Policy, signals: Any) -> Exchange:
    return Exchange(grpc_policy, signals, affinity=AffinityNames("salt"))


def call(method: str, *, is_duplex: bool = False, **more: str) -> HeadersReceived:
    path = method if method.startswith("/") else f"{SERVICE}/{method}"
    pairs = {":method": "POST", ":path": path, "content-type": "application/grpc"}
    pairs |= {name.replace("_", "-"): value for name, value in more.items()}
    return HeadersReceived(Headers(pairs.items()), is_end=False, is_duplex=is_duplex)


def infer(model: str = "assistant", max_tokens: int | None = 50, prompt: str = "Hello") -> triton.ModelInferRequest:
    request = triton.ModelInferRequest(model_name=model)
    data = prompt.encode()
    request.inputs.add(name="text_input", datatype="BYTES", shape=[1, 1])
    request.raw_input_contents.append(struct.pack("<I", len(data)) + data)
    if max_tokens is not None:
        request.inputs.add(name="max_tokens", datatype="INT32", shape=[1, 1])
        request.raw_input_contents.append(struct.pack("<i", max_tokens))
    return request


def frame(request: Any) -> bytes:
    return framed(request.SerializeToString())


def whole(request: Any) -> BodyReceived:
    return BodyReceived(frame(request), is_end=True)


def piece(data: bytes, *, is_end: bool = False) -> BodyReceived:
    return BodyReceived(data, is_end)


def sent(body: bytes | None) -> list[triton.ModelInferRequest]:
    """The messages of a body that goes on."""
    assert body is not None
    messages = []
    while body:
        size = int.from_bytes(body[1:5], "big")
        messages.append(triton.ModelInferRequest.FromString(body[5 : 5 + size]))
        body = body[5 + size :]
    return messages


def forwarded(effects: list[Effect]) -> Forward:
    [forward, *others, report] = effects
    assert isinstance(forward, Forward)
    assert isinstance(report, Report)
    assert all(isinstance(effect, SendBody) for effect in others)
    return forward


def refused(effects: list[Effect]) -> Respond:
    [respond, *_] = effects
    assert isinstance(respond, Respond)
    return respond


def acquires(effects: list[Effect]) -> bool:
    return [type(effect) for effect in effects] == [AcquireLease]


# unary


def test_an_infer_is_renamed_and_capped(exchange: Exchange) -> None:
    assert exchange.receive(call("ModelInfer"), 0.0) == [Continue(Phase.REQUEST_HEADERS)]
    assert acquires(exchange.receive(whole(infer(max_tokens=5000)), 0.0))

    forward = forwarded(exchange.receive(LeaseGranted(LEASE), 0.0))

    assert forward.phase is Phase.REQUEST_BODY
    assert forward.set_headers["x-model-cluster"] == "best.kserve_grpc"
    assert forward.set_headers["content-length"] == str(len(forward.body or b""))
    assert ":path" not in forward.set_headers
    assert forward.decision.protocol == "kserve_grpc"
    assert forward.decision.operation == "infer"
    assert forward.decision.max_output_tokens == 100
    expected = infer("ensemble", max_tokens=100)
    assert sent(forward.body) == [expected]


def cooled(max_tokens: int) -> triton.ModelInferRequest:
    """What `infer("cool")` becomes on its way."""
    request = infer("ensemble", max_tokens)
    request.inputs.add(name="temperature", datatype="FP32", shape=[1, 1])
    request.raw_input_contents.append(struct.pack("<f", 0.5))
    request.parameters["priority"].int64_param = 1
    return request


def test_an_infer_gets_what_its_route_sets_and_its_tiers_priority(exchange: Exchange) -> None:
    exchange.receive(call("ModelInfer"), 0.0)
    exchange.receive(whole(infer("cool")), 0.0)

    assert sent(forwarded(exchange.receive(LeaseGranted(LEASE), 0.0)).body) == [cooled(50)]


def test_a_model_of_the_same_name_on_its_cluster_gets_what_its_route_sets_too(exchange: Exchange) -> None:
    stream(exchange, frame(infer("same", 5)))
    [_, streamed, _] = exchange.receive(LeaseGranted(LEASE), 0.0)
    [later] = exchange.receive(piece(frame(infer("same", 5))), 0.0)

    assert isinstance(streamed, SendBody)
    assert isinstance(later, SendBody)
    for [request] in (sent(streamed.body), sent(later.body)):
        assert [tensor.name for tensor in request.inputs] == ["text_input", "max_tokens", "temperature"]


def test_a_unary_call_for_such_a_model_does_as_well(exchange: Exchange) -> None:
    exchange.receive(call("ModelInfer"), 0.0)
    exchange.receive(whole(infer("same", 5)), 0.0)

    [request] = sent(forwarded(exchange.receive(LeaseGranted(LEASE), 0.0)).body)
    assert [tensor.name for tensor in request.inputs] == ["text_input", "max_tokens", "temperature"]


def test_a_tensor_that_cannot_hold_what_the_route_sets_is_refused_and_its_slot_given_back(exchange: Exchange) -> None:
    request = infer("cool")
    request.inputs.add(name="temperature", datatype="BYTES", shape=[1, 1])
    request.raw_input_contents.append(b"")
    exchange.receive(call("ModelInfer"), 0.0)
    exchange.receive(whole(request), 0.0)

    [release, respond, _] = exchange.receive(LeaseGranted(LEASE), 0.0)

    assert release == ReleaseLease(LEASE)
    assert isinstance(respond, Respond)
    assert respond.grpc_status is StatusCode.INVALID_ARGUMENT


@pytest.mark.parametrize("is_binary", [True, False])
def test_an_infer_over_http_declares_how_much_json_it_has_become(exchange: Exchange, is_binary: bool) -> None:
    limit = {"name": "max_tokens", "shape": [1, 1], "datatype": "INT32"}
    limit |= {"parameters": {"binary_data_size": 4}} if is_binary else {"data": [7]}
    text = {"name": "text_input", "shape": [1, 1], "datatype": "BYTES", "data": ["Hello"]}
    head = json.dumps({"inputs": [text, limit]}).encode()
    declared = {"inference_header_content_length": str(len(head))} if is_binary else {}
    exchange.receive(call("/v2/models/cool/infer", **declared), 0.0)
    exchange.receive(piece(head + (b"\7\0\0\0" if is_binary else b""), is_end=True), 0.0)

    forward = forwarded(exchange.receive(LeaseGranted(LEASE), 0.0))

    assert forward.body is not None
    length = forward.set_headers.get("inference-header-content-length")
    assert (length is not None) == is_binary
    temperature = {"name": "temperature", "shape": [1, 1], "datatype": "FP32", "data": [0.5]}
    json_bytes = int(length) if length else len(forward.body)
    assert json.loads(forward.body[:json_bytes]) == {
        "inputs": [text, limit, temperature],
        "parameters": {"priority": 1},
    }
    assert forward.body[json_bytes:] == (b"\7\0\0\0" if is_binary else b"")
    assert forward.set_headers["content-length"] == str(len(forward.body))


def test_an_infer_that_needs_no_edit_goes_on_as_it_came(exchange: Exchange) -> None:
    exchange.receive(call("ModelInfer"), 0.0)
    exchange.receive(whole(infer("sentiment", None)), 0.0)

    assert forwarded(exchange.receive(LeaseGranted(LEASE), 0.0)).body is None


def test_a_compressed_message_is_edited_and_sent_plain(exchange: Exchange) -> None:
    message = gzip.compress(infer().SerializeToString())
    exchange.receive(call("ModelInfer", grpc_encoding="gzip"), 0.0)
    exchange.receive(piece(b"\1" + struct.pack(">I", len(message)) + message, is_end=True), 0.0)

    assert sent(forwarded(exchange.receive(LeaseGranted(LEASE), 0.0)).body) == [infer("ensemble")]


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b"", 400, StatusCode.INVALID_ARGUMENT),
        (b"\0\0\0\0\1\xff", 400, StatusCode.INVALID_ARGUMENT),
        (frame(infer("nope")), 404, StatusCode.NOT_FOUND),
        (frame(infer("chat")), 404, StatusCode.NOT_FOUND),
        (b"\1\0\0\0\1x", 415, StatusCode.UNIMPLEMENTED),
        (frame(infer(prompt="x" * 70_000)), 413, StatusCode.RESOURCE_EXHAUSTED),
    ],
)
def test_a_refusal_has_grpcs_status_and_a_plain_message(
    exchange: Exchange, body: bytes, status: int, code: StatusCode
) -> None:
    exchange.receive(call("ModelInfer", grpc_encoding="snappy"), 0.0)

    respond = refused(exchange.receive(piece(body, is_end=True), 0.0))

    assert (respond.status, respond.grpc_status) == (status, code)
    assert "content-type" not in respond.headers
    assert not respond.body.startswith(b"{")


def test_a_full_cluster_tells_a_grpc_client_when_to_come_back(exchange: Exchange) -> None:
    exchange.receive(call("ModelInfer"), 0.0)
    exchange.receive(whole(infer()), 0.0)
    exchange.receive(LeaseRefused(Scope.CLUSTER, 2.5), 0.0)

    respond = refused(exchange.receive(LeaseRefused(Scope.CLUSTER, 2.5, "queue_full"), 0.0))

    assert respond.grpc_status is StatusCode.RESOURCE_EXHAUSTED
    assert respond.headers["grpc-retry-pushback-ms"] == "2500"


# streams


def stream(exchange: Exchange, *pieces: bytes) -> list[Effect]:
    """Headers, which are not answered yet, and pieces, of which only the last has effects."""
    assert exchange.receive(call("ModelStreamInfer", is_duplex=True), 0.0) == []
    effects: list[Effect] = []
    for data in pieces:
        assert effects == []
        effects = exchange.receive(piece(data), 0.0)
    return effects


def test_a_stream_goes_on_with_its_first_message(exchange: Exchange) -> None:
    message = frame(infer(max_tokens=5000))
    assert acquires(stream(exchange, message[:3], message[3:20], message[20:]))

    [forward, send, report] = exchange.receive(LeaseGranted(LEASE), 0.0)

    assert isinstance(forward, Forward)
    assert forward.phase is Phase.REQUEST_HEADERS
    assert forward.body is None
    assert "content-length" not in forward.set_headers
    assert isinstance(send, SendBody)
    assert (sent(send.body), send.is_end) == ([infer("ensemble", 100)], False)
    assert isinstance(report, Report)


def opened(exchange: Exchange) -> None:
    stream(exchange, frame(infer()))
    exchange.receive(LeaseGranted(LEASE), 0.0)


def test_later_messages_are_edited_like_the_first_with_limits_of_their_own(exchange: Exchange) -> None:
    opened(exchange)
    both = frame(infer(max_tokens=7)) + frame(infer(max_tokens=999))

    first = exchange.receive(piece(both[:-4]), 0.0)
    rest = exchange.receive(piece(both[-4:], is_end=True), 0.0)

    assert [(sent(send.body), send.is_end) for send in (*first, *rest) if isinstance(send, SendBody)] == [
        ([infer("ensemble", 7)], False),
        ([infer("ensemble", 100)], True),
    ]


def test_every_message_of_a_stream_gets_what_the_route_sets(exchange: Exchange) -> None:
    stream(exchange, frame(infer("cool", 5)))
    [_, first, _] = exchange.receive(LeaseGranted(LEASE), 0.0)
    [second] = exchange.receive(piece(frame(infer("cool", 9))), 0.0)

    assert isinstance(first, SendBody)
    assert isinstance(second, SendBody)
    assert sent(first.body) + sent(second.body) == [cooled(5), cooled(9)]


def test_a_half_close_goes_on(exchange: Exchange) -> None:
    opened(exchange)

    assert exchange.receive(piece(b"", is_end=True), 0.0) == [SendBody(b"", is_end=True)]
    assert exchange.receive(StreamEnded(), 0.0) == [ReleaseLease(LEASE)]


@pytest.mark.parametrize("later", [infer("sentiment"), infer("ensemble"), infer(max_tokens=-1)])
def test_a_message_for_another_model_ends_the_stream(exchange: Exchange, later: Any) -> None:
    opened(exchange)

    [respond] = exchange.receive(piece(frame(later)), 0.0)

    assert isinstance(respond, Respond)
    assert respond.grpc_status is StatusCode.INVALID_ARGUMENT
    assert exchange.receive(StreamEnded(), 0.0) == [ReleaseLease(LEASE)]


def test_what_comes_while_the_first_message_waits_goes_on_behind_it(exchange: Exchange) -> None:
    stream(exchange, frame(infer()))
    [join] = exchange.receive(LeaseRefused(Scope.CLUSTER, 1.0), 0.0)
    assert isinstance(join, JoinQueue)
    assert exchange.receive(piece(frame(infer(max_tokens=1)), is_end=True), 0.0) == []

    [_, send, _] = exchange.receive(LeaseGranted(LEASE, 0.5), 0.5)

    assert isinstance(send, SendBody)
    assert (sent(send.body), send.is_end) == ([infer("ensemble", 50), infer("ensemble", 1)], True)


def test_no_more_than_one_bodys_limit_waits(exchange: Exchange) -> None:
    stream(exchange, frame(infer(prompt="x" * 40_000)))

    respond = refused(exchange.receive(piece(frame(infer(prompt="x" * 40_000))), 0.0))

    assert respond.grpc_status is StatusCode.RESOURCE_EXHAUSTED
    assert exchange.receive(LeaseGranted(LEASE), 0.0) == [ReleaseLease(LEASE)]
    assert exchange.receive(piece(b"more"), 0.0) == []


def test_a_message_that_waits_behind_the_first_may_spoil_it(exchange: Exchange) -> None:
    stream(exchange, frame(infer()))
    exchange.receive(piece(frame(infer("sentiment"))), 0.0)

    [release, respond, _] = exchange.receive(LeaseGranted(LEASE), 0.0)

    assert release == ReleaseLease(LEASE)
    assert isinstance(respond, Respond)


@pytest.mark.parametrize("data", [b"", b"\0\0\0\0\x09half"])
def test_a_stream_without_a_whole_message_is_refused(exchange: Exchange, data: bytes) -> None:
    exchange.receive(call("ModelStreamInfer", is_duplex=True), 0.0)

    assert refused(exchange.receive(piece(data, is_end=True), 0.0)).grpc_status is StatusCode.INVALID_ARGUMENT


TRAILERS = OtherReceived(Phase.REQUEST_TRAILERS)


@pytest.mark.parametrize("data", [b"", b"\0\0\0\0\x09half"])
def test_a_stream_that_trailers_end_before_a_whole_message_is_refused_and_never_passes(
    exchange: Exchange, data: bytes
) -> None:
    exchange.receive(call("ModelStreamInfer", is_duplex=True), 0.0)
    assert exchange.receive(piece(data), 0.0) == []

    assert refused(exchange.receive(TRAILERS, 0.0)).grpc_status is StatusCode.INVALID_ARGUMENT


def test_trailers_after_the_first_message_change_nothing(exchange: Exchange) -> None:
    assert acquires(stream(exchange, frame(infer())))
    forwarded(exchange.receive(LeaseGranted(LEASE), 0.0))

    assert exchange.receive(TRAILERS, 0.0) == [Continue(Phase.REQUEST_TRAILERS)]
    assert exchange.receive(StreamEnded(), 1.0) == [ReleaseLease(LEASE)]


def test_a_stream_that_envoy_buffers_is_read_like_a_unary_call(exchange: Exchange) -> None:
    assert exchange.receive(call("ModelStreamInfer"), 0.0) == [Continue(Phase.REQUEST_HEADERS)]
    assert acquires(exchange.receive(whole(infer()), 0.0))

    assert sent(forwarded(exchange.receive(LeaseGranted(LEASE), 0.0)).body) == [infer("ensemble")]


def test_a_body_that_has_to_be_whole_is_not_taken_in_pieces(exchange: Exchange) -> None:
    respond = refused(exchange.receive(call("ModelInfer", is_duplex=True), 0.0))

    assert b"BUFFERED" in respond.body


def test_envoy_cannot_go_on_with_a_stream_alone(exchange: Exchange) -> None:
    opened(exchange)

    assert exchange.is_decided
    assert not exchange.is_detachable


def test_a_refused_stream_is_not_refused_again(exchange: Exchange) -> None:
    stream(exchange, frame(infer("nope")))
    exchange.receive(piece(b"more"), 0.0)

    assert exchange.is_detachable
    assert exchange.receive(TurnedAway("shutting_down"), 0.0) == []


def test_a_waiting_stream_is_turned_away(exchange: Exchange) -> None:
    stream(exchange, frame(infer()))

    assert refused(exchange.receive(TurnedAway("shutting_down"), 0.0)).grpc_status is StatusCode.UNAVAILABLE


# questions


@pytest.mark.parametrize(
    "method", ["ServerLive", "ServerReady", "ServerMetadata", "RepositoryIndex", "/grpc.health.v1.Health/Check"]
)
def test_questions_about_the_gateway_go_to_the_sidecar_and_are_not_counted(exchange: Exchange, method: str) -> None:
    forward = forwarded(exchange.receive(call(method), 0.0))

    assert forward.set_headers == {"x-model-cluster": SIDECAR_CLUSTER}


@pytest.mark.parametrize("method", ["ModelReady", "ModelMetadata", "ModelConfig", "ModelStatistics"])
def test_questions_about_a_model_go_to_it_and_are_not_counted(exchange: Exchange, method: str) -> None:
    assert exchange.receive(call(method), 0.0) == [Continue(Phase.REQUEST_HEADERS)]

    forward = forwarded(exchange.receive(whole(triton.ModelReadyRequest(name="assistant", version="1")), 0.0))

    assert forward.set_headers.keys() == {"x-model-cluster", "content-length"}
    assert forward.set_headers["x-model-cluster"] == "best.kserve_grpc"
    assert forward.body == frame(triton.ModelReadyRequest(name="ensemble", version="1"))


@pytest.mark.parametrize(("name", "status"), [("nope", StatusCode.NOT_FOUND), ("", StatusCode.NOT_FOUND)])
def test_a_question_about_no_model_is_not_found(exchange: Exchange, name: str, status: StatusCode) -> None:
    exchange.receive(call("ModelReady"), 0.0)

    assert refused(exchange.receive(whole(triton.ModelReadyRequest(name=name)), 0.0)).grpc_status is status


def test_a_model_without_grpc_is_left_to_envoys_404(exchange: Exchange) -> None:
    exchange.receive(call("ModelReady"), 0.0)

    forward = forwarded(exchange.receive(whole(triton.ModelReadyRequest(name="chat")), 0.0))

    assert forward.set_headers == {}


def test_other_methods_pass_with_the_tenants_limit_and_lead_nowhere(exchange: Exchange) -> None:
    assert acquires(exchange.receive(call("RepositoryModelUnload"), 0.0))

    assert "x-model-cluster" not in forwarded(exchange.receive(LeaseGranted(LEASE), 0.0)).set_headers


# affinity


def affinity(exchange: Exchange, **more: str) -> str:
    exchange.receive(call("ModelInfer", **more), 0.0)
    exchange.receive(whole(infer()), 0.0)
    return forwarded(exchange.receive(LeaseGranted(LEASE), 0.0)).set_headers[AFFINITY_HEADER]


def test_a_request_for_a_cluster_with_affinity_is_named(grpc_policy: Policy, signals: Any) -> None:
    names = [
        affinity(Exchange(grpc_policy, signals, affinity=AffinityNames("salt")), x_session_id=session)
        for session in ("a", "a", "b")
    ]

    assert names[0] == names[1] != names[2]


def test_a_request_for_a_cluster_without_is_not(grpc_policy: Policy, exchange: Exchange) -> None:
    assert grpc_policy.clusters["sentiment"].affinity is Affinity.OFF
    exchange.receive(call("ModelInfer", x_session_id="a"), 0.0)
    exchange.receive(whole(infer("sentiment", None)), 0.0)

    assert AFFINITY_HEADER not in forwarded(exchange.receive(LeaseGranted(LEASE), 0.0)).set_headers


# compressed HTTP bodies


def post(path: str, **more: str) -> HeadersReceived:
    pairs = {":method": "POST", ":path": path, "content-encoding": "gzip"} | more
    return HeadersReceived(Headers(pairs.items()), is_end=False)


@pytest.mark.parametrize("max_tokens", [5, 5000])
def test_a_compressed_generate_is_sent_plain(exchange: Exchange, max_tokens: int) -> None:
    fields = {"text_input": "Hello", "max_tokens": max_tokens}
    exchange.receive(post("/v2/models/assistant/generate"), 0.0)
    exchange.receive(piece(gzip.compress(json.dumps(fields).encode()), is_end=True), 0.0)

    forward = forwarded(exchange.receive(LeaseGranted(LEASE), 0.0))

    assert forward.remove_headers == ("content-encoding",)
    assert forward.body is not None
    assert json.loads(forward.body) == fields | {"max_tokens": min(100, max_tokens)}
    assert forward.set_headers["content-length"] == str(len(forward.body))


def test_a_compressed_infer_without_an_edit_goes_on_as_it_came(exchange: Exchange) -> None:
    tensors = {"inputs": [{"name": "text", "datatype": "BYTES", "shape": [1, 1], "data": ["x"]}]}
    exchange.receive(post("/v2/models/sentiment/infer"), 0.0)
    exchange.receive(piece(gzip.compress(json.dumps(tensors).encode()), is_end=True), 0.0)

    forward = forwarded(exchange.receive(LeaseGranted(LEASE), 0.0))

    assert (forward.body, forward.remove_headers) == (None, ())


@pytest.mark.parametrize(
    ("body", "status"),
    [(gzip.compress(b"x" * 70_000), 413), (b"not gzip", 400), (gzip.compress(b"{}")[:-3], 400)],
)
def test_a_compressed_body_that_cannot_be_read_is_refused(exchange: Exchange, body: bytes, status: int) -> None:
    exchange.receive(post("/v2/models/assistant/generate"), 0.0)

    assert refused(exchange.receive(piece(body, is_end=True), 0.0)).status == status
