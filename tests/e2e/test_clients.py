"""Real clients through the real Envoy: the openai SDK, and plain HTTP for Triton's API."""

from __future__ import annotations

import json

import openai
import pytest

from headgate_cli.demo.cases import BEST_EFFORT, INTERACTIVE, PREMIUM
from headgate_cli.demo.client import Client

HELLO = [{"role": "user", "content": "Hello"}]


def test_the_openai_sdk_chats(openai_url: str) -> None:
    with openai.OpenAI(api_key=INTERACTIVE, base_url=openai_url, max_retries=0) as sdk:
        raw = sdk.chat.completions.with_raw_response.create(model="assistant", messages=HELLO, max_tokens=5)

    completion = raw.parse()
    assert completion.choices[0].message.content
    assert completion.usage.completion_tokens == 5
    assert raw.headers["x-headgate-decision"] == "admit"


def test_the_openai_sdk_streams_with_usage(openai_url: str) -> None:
    with openai.OpenAI(api_key=INTERACTIVE, base_url=openai_url, max_retries=0) as sdk:
        stream = sdk.chat.completions.create(
            model="assistant", messages=HELLO, max_tokens=6, stream=True, stream_options={"include_usage": True}
        )
        chunks = list(stream)

    assert sum(bool(chunk.choices and chunk.choices[0].delta.content) for chunk in chunks) == 6
    assert chunks[-1].usage.completion_tokens == 6


def test_output_tokens_are_capped_at_the_tier(openai_url: str) -> None:
    with openai.OpenAI(api_key=BEST_EFFORT, base_url=openai_url, max_retries=0) as sdk:
        completion = sdk.chat.completions.create(model="assistant", messages=HELLO)

    assert completion.usage.completion_tokens <= 128


@pytest.mark.parametrize(
    ("key", "model", "error", "code"),
    [
        ("wrong", "assistant", openai.AuthenticationError, "invalid_api_key"),
        (INTERACTIVE, "nope", openai.NotFoundError, "model_not_found"),
        (INTERACTIVE, "sentiment", openai.NotFoundError, "model_not_found"),
    ],
)
def test_the_openai_sdk_raises_its_own_errors(
    openai_url: str, key: str, model: str, error: type[openai.APIStatusError], code: str
) -> None:
    with openai.OpenAI(api_key=key, base_url=openai_url, max_retries=0) as sdk, pytest.raises(error) as raised:
        sdk.chat.completions.create(model=model, messages=HELLO)

    assert raised.value.code == code
    assert raised.value.request_id


def test_the_openai_sdk_lists_the_models_of_the_policy(openai_url: str) -> None:
    with openai.OpenAI(api_key=INTERACTIVE, base_url=openai_url, max_retries=0) as sdk:
        assert {model.id for model in sdk.models.list()} == {"assistant", "sentiment"}


def test_triton_infer_runs_a_model_that_is_no_language_model(client: Client) -> None:
    body = {"inputs": [{"name": "text", "datatype": "BYTES", "shape": [1, 1], "data": ["what a wonderful day"]}]}

    answer = client.post("/v2/models/sentiment/infer", json.dumps(body).encode(), key=PREMIUM)

    assert answer.status == 200
    outputs = {output["name"]: output["data"] for output in json.loads(answer.body)["outputs"]}
    assert outputs["label"] == ["positive"]


def test_tritons_own_questions_about_a_model_reach_it(client: Client) -> None:
    response = client._http.get("/v2/models/assistant/config", headers={"authorization": f"Bearer {PREMIUM}"})

    assert response.status_code == 200
    assert response.json()["name"] == "best"


def test_triton_refusals_have_tritons_format(client: Client) -> None:
    answer = client.generate(PREMIUM, "Hello", model="nope")

    assert answer.status == 404
    assert json.loads(answer.body) == {"error": "The model 'nope' does not exist."}


def test_a_path_nobody_serves_is_a_404_in_json(client: Client) -> None:
    answer = client.post("/v1/embeddings", b'{"model": "assistant", "input": "x"}', key=PREMIUM)

    assert answer.status == 404
    assert json.loads(answer.body)["error"]["type"] == "invalid_request_error"


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("/v1/chat/completions", b"", 400),
        ("/v1/chat/completions", b"[]", 400),
        ("/v1/chat/completions", b"\xff\xfe", 400),
        ("/v1/chat/completions", b'{"model": 7, "messages": []}', 400),
        ("/v1/chat/completions", b'{"model": "assistant", "messages": "x"}', 400),
        ("/v1/chat/completions", b'{"model": "assistant", "messages": [{"content": NaN}]}', 400),
        ("/v1/chat/completions", b"[" * 100_000, 400),
        ("/v1/completions", b'{"model": "assistant", "prompt": {"a": 1}}', 400),
        ("/v2/models/assistant/generate", b'{"text_input": 7}', 400),
        ("/v2/models/assistant/generate", b'{"text_input": "x", "max_tokens": -1}', 400),
        ("/v2/models/sentiment/infer", b'{"inputs": 7}', 400),
    ],
)
def test_malformed_bodies_are_the_clients_fault(client: Client, path: str, body: bytes, status: int) -> None:
    answer = client.post(path, body, key=PREMIUM)

    assert answer.status == status
    assert "error" in json.loads(answer.body)
    assert b"Traceback" not in answer.body
