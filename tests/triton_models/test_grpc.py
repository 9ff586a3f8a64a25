"""The model repository over gRPC, with NVIDIA's own client."""

from __future__ import annotations

import queue

import numpy as np
import pytest
from tritonclient import grpc as tritonclient
from tritonclient.utils import InferenceServerException

DTYPES = {"BYTES": np.object_, "INT32": np.int32, "BOOL": np.bool_}


@pytest.fixture
def client(triton):
    with tritonclient.InferenceServerClient(triton.grpc_address) as client:
        yield client


def tensor(name, datatype, value):
    made = tritonclient.InferInput(name, [1, 1], datatype)
    made.set_data_from_numpy(np.array([[value]], dtype=DTYPES[datatype]))
    return made


def prompt(*, max_tokens, stream):
    return [
        tensor("text_input", "BYTES", b"One boat waits."),
        tensor("max_tokens", "INT32", max_tokens),
        tensor("stream", "BOOL", stream),
    ]


def test_sentiment_answers_over_grpc(client):
    result = client.infer("sentiment", [tensor("text", "BYTES", b"what an awful, broken gate")])
    assert result.as_numpy("label").item() == b"negative"
    assert -1 < result.as_numpy("score").item() < 0


def test_a_stream_over_grpc_ends_with_its_last_token(client):
    arrived = queue.Queue()
    client.start_stream(lambda result, error: arrived.put((result, error)))
    client.async_stream_infer("fast", prompt(max_tokens=6, stream=True), enable_empty_final_response=True)
    answers = [arrived.get(timeout=10) for _ in range(6)]
    client.stop_stream()
    assert [error for _, error in answers] == [None] * 6
    assert b"".join(result.as_numpy("text_output").item() for result, _ in answers).startswith(b" ")
    finals = [result.get_response().parameters["triton_final_response"].bool_param for result, _ in answers]
    assert finals == [False] * 5 + [True]


def test_a_cancelled_call_over_grpc_frees_its_slot(triton, client):
    arrived = queue.Queue()
    client.start_stream(lambda result, error: arrived.put((result, error)))
    inputs = [
        tensor("input_ids", "INT32", 65),
        tensor("input_lengths", "INT32", 1),
        tensor("request_output_len", "INT32", 1000),
        tensor("streaming", "BOOL", True),
    ]
    client.async_stream_infer("best_tensorrt_llm", inputs)
    assert arrived.get(timeout=10)[1] is None
    client.stop_stream(cancel_requests=True)
    triton.wait_until_idle("best_tensorrt_llm")


def test_a_refusal_over_grpc_names_the_reason(client):
    arrived = queue.Queue()
    client.start_stream(lambda result, error: arrived.put((result, error)))
    client.async_stream_infer("best", prompt(max_tokens=0, stream=False))
    _, error = arrived.get(timeout=10)
    client.stop_stream()
    assert isinstance(error, InferenceServerException)
    assert "must be greater than 0, got 0" in error.message()
