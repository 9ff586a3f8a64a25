"""NVIDIA's own clients through the real Envoy to the real Triton: gRPC, unary and streams, and HTTP."""

from __future__ import annotations

import contextlib
import gzip
import json
import queue
import zlib
from typing import Any

import grpc
import numpy as np
import pytest
import tritonclient.http as httpclient
from tritonclient.utils import InferenceServerException

from headgate_cli.demo.cases import BEST_EFFORT, INTERACTIVE, PREMIUM, Demo
from headgate_cli.demo.client import Client
from headgate_cli.stack import Stack

GrpcTriton = Any
GOOD_DAY = "what a wonderful day"
FREE_AGAIN_SECONDS = 30.0
# A tenant's window may begin anew while it asks, and a busy slot refuses before anything is counted.
MOST_ATTEMPTS = 1000


def sentiment(client: GrpcTriton, key: str | None = PREMIUM, model: str = "sentiment", **options: Any) -> Any:
    return client.sdk.infer(model, [client.text("text", GOOD_DAY)], headers=client.headers(key), **options)


# unary


@pytest.mark.parametrize("compression", [None, "gzip", "deflate"])
def test_an_infer_runs_its_model(grpc_triton: GrpcTriton, compression: str | None) -> None:
    result = sentiment(grpc_triton, compression_algorithm=compression, request_id="r-1")

    assert result.as_numpy("label").tolist() == [[b"positive"]]
    assert result.get_response().id == "r-1"


def test_an_infer_may_be_asynchronous(grpc_triton: GrpcTriton) -> None:
    answers: queue.Queue[tuple[Any, Any]] = queue.Queue()
    tensors, headers = [grpc_triton.text("text", GOOD_DAY)], grpc_triton.headers(PREMIUM)

    def take(result: Any, error: Any) -> None:
        answers.put((result, error))

    for _ in range(10):
        grpc_triton.sdk.async_infer("sentiment", tensors, take, headers=headers)

    for _ in range(10):
        result, error = answers.get(timeout=20)
        assert error is None
        assert result.as_numpy("label").tolist() == [[b"positive"]]


@pytest.mark.parametrize(
    ("key", "model", "status", "message"),
    [
        ("wrong", "sentiment", "UNAUTHENTICATED", "The API key is not known."),
        (PREMIUM, "nope", "NOT_FOUND", "The model 'nope' does not exist."),
    ],
)
def test_an_infer_is_refused_in_grpcs_own_words(
    grpc_triton: GrpcTriton, key: str, model: str, status: str, message: str
) -> None:
    with pytest.raises(InferenceServerException) as raised:
        sentiment(grpc_triton, key, model)

    assert raised.value.status() == f"StatusCode.{status}"
    assert raised.value.message() == message


def test_a_message_above_the_tiers_limit_is_resource_exhausted(grpc_triton: GrpcTriton) -> None:
    tensors = [grpc_triton.text("text", "x" * 2_000_000)]

    with pytest.raises(InferenceServerException, match="larger than the 1048576 bytes") as raised:
        grpc_triton.sdk.infer("sentiment", tensors, headers=grpc_triton.headers(BEST_EFFORT))

    assert raised.value.status() == "StatusCode.RESOURCE_EXHAUSTED"


def test_what_is_no_message_of_kserves_is_invalid(url: str) -> None:
    with grpc.insecure_channel(url.removeprefix("http://")) as channel, pytest.raises(grpc.RpcError) as raised:
        _raw_infer(channel)(b"\xff\xff", metadata=[("authorization", f"Bearer {PREMIUM}")])

    assert raised.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    told = dict(raised.value.trailing_metadata())
    assert told["x-headgate-decision"] == "reject; reason=bad_request"


def _raw_infer(channel: grpc.Channel) -> Any:
    return channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")


def test_over_its_rate_a_tenant_is_told_when_to_come_back(url: str) -> None:
    with grpc.insecure_channel(url.removeprefix("http://")) as channel:
        infer = _raw_infer(channel)
        told = (_refusal(infer, b"\n\tsentiment") for _ in range(MOST_ATTEMPTS))
        limited = next(error for error in told if "requests per minute" in error.details())

    assert limited.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    headers = dict(limited.trailing_metadata())
    assert int(headers["grpc-retry-pushback-ms"]) > 0
    assert headers["x-headgate-decision"] == "reject; reason=requests_per_minute"


def _refusal(infer: Any, message: bytes) -> Any:
    with pytest.raises(grpc.RpcError) as raised:
        infer(message, timeout=20)
    return raised.value


# streams


def test_a_stream_answers_before_the_client_has_closed_its_side(grpc_triton: GrpcTriton) -> None:
    grpc_triton.start(PREMIUM)
    grpc_triton.generate(max_tokens=4)
    first = grpc_triton.tokens(4)

    grpc_triton.generate("And now something else.", max_tokens=3)
    second = grpc_triton.tokens(3)

    assert all([*first, *second])


@pytest.mark.parametrize("compression", ["gzip", "deflate"])
def test_a_compressed_stream_is_read(grpc_triton: GrpcTriton, compression: str) -> None:
    grpc_triton.start(PREMIUM, compression_algorithm=compression)
    grpc_triton.generate("A long prompt. " * 2000, max_tokens=2)

    assert len(grpc_triton.tokens(2)) == 2


@pytest.mark.parametrize(
    ("key", "model", "status"), [("wrong", "assistant", "UNAUTHENTICATED"), (PREMIUM, "nope", "NOT_FOUND")]
)
def test_a_stream_is_refused_in_grpcs_own_words(grpc_triton: GrpcTriton, key: str, model: str, status: str) -> None:
    grpc_triton.start(key)
    # A wrong key is refused on the headers, perhaps before there is anything to say.
    with contextlib.suppress(InferenceServerException):
        grpc_triton.generate(model=model)

    assert grpc_triton.error().status() == f"StatusCode.{status}"


def test_a_stream_is_for_one_model(grpc_triton: GrpcTriton) -> None:
    grpc_triton.start(PREMIUM)
    grpc_triton.generate(max_tokens=1)
    grpc_triton.tokens(1)

    grpc_triton.generate(model="sentiment")

    assert grpc_triton.error().status()


# leases


def leases(stack: Stack) -> tuple[Demo, str]:
    """A look at the slots of the cluster that takes streams of the interactive tier."""
    return Demo("leases", Client(stack.url, stack.supervisor.log("headgate")), stack.admin_url), (
        'headgate_leases{name="fast",scope="cluster_concurrency"}'
    )


def test_a_stream_holds_its_slot_from_the_first_message_to_the_half_close(
    grpc_triton: GrpcTriton, stack: Stack
) -> None:
    look, metric = leases(stack)
    grpc_triton.start(INTERACTIVE)
    grpc_triton.generate(max_tokens=2)
    grpc_triton.tokens(2)
    assert look.wait_until(metric, lambda count: count == 1.0)

    grpc_triton.sdk.stop_stream()

    assert look.wait_until(metric, lambda count: count == 0.0, within_seconds=FREE_AGAIN_SECONDS)


def test_a_cancelled_stream_gives_its_slot_back(grpc_triton: GrpcTriton, stack: Stack) -> None:
    look, metric = leases(stack)
    grpc_triton.start(INTERACTIVE)
    grpc_triton.generate(max_tokens=400)
    grpc_triton.tokens(2)
    assert look.wait_until(metric, lambda count: count == 1.0)

    grpc_triton.sdk.stop_stream(cancel_requests=True)

    assert look.wait_until(metric, lambda count: count == 0.0, within_seconds=FREE_AGAIN_SECONDS)


def test_a_stream_past_its_deadline_gives_its_slot_back(grpc_triton: GrpcTriton, stack: Stack) -> None:
    look, metric = leases(stack)
    grpc_triton.start(INTERACTIVE, stream_timeout=0.5)
    grpc_triton.generate(max_tokens=400)
    # Client and Envoy count the same time; whichever is first ends the stream in its own words.
    while grpc_triton._answers.get(timeout=20)[1] is None:
        pass

    assert look.wait_until(metric, lambda count: count == 0.0, within_seconds=FREE_AGAIN_SECONDS)


# questions


def test_questions_are_answered_and_never_counted(grpc_triton: GrpcTriton) -> None:
    sdk = grpc_triton.sdk
    for _ in range(40):
        assert sdk.is_server_live()

    headers = grpc_triton.headers(PREMIUM)
    assert sdk.is_server_ready(headers)
    assert sdk.get_server_metadata(headers).name == "headgate"
    assert {model.name for model in sdk.get_model_repository_index(headers).models} == {"assistant", "sentiment"}
    assert sdk.is_model_ready("assistant", headers=headers)
    assert sdk.get_model_metadata("assistant", headers=headers).name == "best"
    assert sdk.get_model_config("sentiment", headers=headers).config.name == "sentiment"
    assert sdk.get_inference_statistics("sentiment", headers=headers).model_stats[0].name == "sentiment"


def test_grpcs_own_health_service_answers(url: str) -> None:
    with grpc.insecure_channel(url.removeprefix("http://")) as channel:
        check = channel.unary_unary("/grpc.health.v1.Health/Check")
        for service in (b"", b"\n\x1einference.GRPCInferenceService"):
            assert check(service, timeout=20) == b"\x08\x01"


def test_a_question_about_no_model_is_not_found(grpc_triton: GrpcTriton) -> None:
    with pytest.raises(InferenceServerException, match="'nope' does not exist"):
        grpc_triton.sdk.is_model_ready("nope", headers=grpc_triton.headers(PREMIUM))


def test_what_changes_the_server_is_not_implemented(grpc_triton: GrpcTriton) -> None:
    with pytest.raises(InferenceServerException) as raised:
        grpc_triton.sdk.unload_model("best", headers=grpc_triton.headers(PREMIUM))

    assert raised.value.status() == "StatusCode.UNIMPLEMENTED"


# HTTP


@pytest.mark.parametrize("is_binary", [True, False])
@pytest.mark.parametrize("compression", [None, "gzip", "deflate"])
def test_the_http_client_infers(http_triton: Any, is_binary: bool, compression: str | None) -> None:
    tensor = httpclient.InferInput("text", (1, 1), "BYTES")
    tensor.set_data_from_numpy(np.array([[GOOD_DAY]], dtype=np.object_), binary_data=is_binary)

    result = http_triton.infer(
        "sentiment",
        [tensor],
        headers={"authorization": f"Bearer {PREMIUM}"},
        request_compression_algorithm=compression,
    )

    assert result.as_numpy("label").tolist() in ([["positive"]], [[b"positive"]])


def test_the_http_client_asks_for_health_and_metadata(http_triton: Any) -> None:
    headers = {"authorization": f"Bearer {PREMIUM}"}

    assert http_triton.is_server_live(headers)
    assert http_triton.is_model_ready("assistant", headers=headers)
    assert http_triton.get_model_metadata("assistant", headers=headers)["name"] == "best"


def test_the_http_client_is_refused_in_tritons_own_words(http_triton: Any) -> None:
    tensor = httpclient.InferInput("text", (1, 1), "BYTES")
    tensor.set_data_from_numpy(np.array([[GOOD_DAY]], dtype=np.object_))

    with pytest.raises(InferenceServerException, match="'nope' does not exist") as raised:
        http_triton.infer("nope", [tensor], headers={"authorization": f"Bearer {PREMIUM}"})

    assert raised.value.status() == "404"


@pytest.mark.parametrize(("encoding", "compress"), [("gzip", gzip.compress), ("deflate", zlib.compress)])
@pytest.mark.parametrize(
    ("path", "fields"),
    [
        ("/v1/chat/completions", {"model": "assistant", "messages": [{"role": "user", "content": "Hi"}]}),
        ("/v2/models/assistant/generate", {"text_input": "Hi", "max_tokens": 3}),
        ("/v2/models/assistant/generate", {"text_input": "Hi", "max_tokens": 100_000}),
    ],
)
def test_a_compressed_body_reaches_servers_that_cannot_decompress(
    client: Client, encoding: str, compress: Any, path: str, fields: dict[str, Any]
) -> None:
    key = INTERACTIVE if path.startswith("/v1") else BEST_EFFORT
    answer = client.post(path, compress(json.dumps(fields).encode()), key=key, headers={"content-encoding": encoding})

    assert answer.status == 200, answer.body


def test_a_compressed_body_that_grows_too_large_is_413(client: Client) -> None:
    bomb = gzip.compress(b'{"text_input": "' + b"x" * 200_000_000)
    answer = client.post("/v2/models/assistant/generate", bomb, key=BEST_EFFORT, headers={"content-encoding": "gzip"})

    assert answer.status == 413
    assert "decompressed" in json.loads(answer.body)["error"]


@pytest.mark.parametrize("encoding", ["br", "zstd"])
def test_a_body_compressed_in_another_way_is_415_and_told_what_is_read(client: Client, encoding: str) -> None:
    answer = client.post("/v1/completions", b"\0", key=PREMIUM, headers={"content-encoding": encoding})

    assert (answer.status, answer.headers["accept-encoding"]) == (415, "gzip, deflate")


def test_anthropics_question_for_a_count_is_answered_in_its_own_words(client: Client) -> None:
    body = b'{"model": "assistant", "messages": [{"role": "user", "content": "Hi"}]}'
    answer = client.post("/v1/messages/count_tokens", body, key=PREMIUM)

    assert (answer.status, json.loads(answer.body)["error"]["type"]) == (404, "not_found_error")
