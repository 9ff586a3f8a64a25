"""Real clients through the real Envoy: the openai and anthropic SDKs, and plain HTTP for Triton's API."""

from __future__ import annotations

import json
from collections.abc import Iterator

import anthropic
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


@pytest.fixture
def sdk(openai_url: str) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(api_key=INTERACTIVE, base_url=openai_url, max_retries=0) as client:
        yield client


@pytest.fixture
def claude(url: str) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(api_key=INTERACTIVE, base_url=url, max_retries=0) as client:
        yield client


def test_the_openai_sdk_completes(sdk: openai.OpenAI) -> None:
    completion = sdk.completions.create(model="assistant", prompt=["One", "Two"], max_tokens=4)

    assert [choice.index for choice in completion.choices] == [0, 1]
    assert completion.usage is not None
    assert completion.usage.completion_tokens == 8


@pytest.mark.parametrize("texts", ["Hello", ["Hello", "Bye"], [1, 2, 3], [[1, 2], [3]]])
def test_the_openai_sdk_embeds(sdk: openai.OpenAI, texts: object) -> None:
    raw = sdk.embeddings.with_raw_response.create(model="assistant", input=texts)  # type: ignore[arg-type]

    vectors = [item.embedding for item in raw.parse().data]
    assert len(vectors) == (2 if texts in (["Hello", "Bye"], [[1, 2], [3]]) else 1)
    assert all(sum(x * x for x in vector) == pytest.approx(1, rel=1e-3) for vector in vectors)
    assert raw.headers["x-headgate-decision"] == "admit"


def test_the_openai_sdk_gets_a_response_no_longer_than_its_tier_allows(sdk: openai.OpenAI) -> None:
    raw = sdk.responses.with_raw_response.create(
        model="assistant", input="Hello", instructions="Be brief.", max_output_tokens=100_000
    )

    response = raw.parse()
    assert response.output_text
    assert response.usage is not None
    assert response.usage.output_tokens <= 700
    assert raw.headers["x-headgate-decision"] == "admit"


def test_the_openai_sdk_streams_a_response(sdk: openai.OpenAI) -> None:
    with sdk.responses.create(
        model="assistant", input=[{"role": "user", "content": "Hello"}], max_output_tokens=6, stream=True
    ) as stream:
        events = list(stream)

    assert sum(event.type == "response.output_text.delta" for event in events) == 6
    assert events[-1].type == "response.incomplete"
    assert events[-1].response.usage is not None
    assert events[-1].response.usage.output_tokens == 6


def test_the_anthropic_sdk_gets_a_message(claude: anthropic.Anthropic) -> None:
    raw = claude.messages.with_raw_response.create(
        model="assistant", system="Be brief.", messages=[{"role": "user", "content": "Hello"}], max_tokens=5
    )

    message = raw.parse()
    [block] = message.content
    assert block.type == "text"
    assert (message.usage.output_tokens, message.stop_reason) == (5, "max_tokens")
    assert raw.headers["x-headgate-decision"] == "admit"


def test_the_anthropic_sdk_streams_a_message(claude: anthropic.Anthropic) -> None:
    with claude.messages.stream(
        model="assistant", messages=[{"role": "user", "content": "Hello"}], max_tokens=6
    ) as stream:
        texts = list(stream.text_stream)

    assert len(texts) == 6
    assert stream.get_final_message().usage.output_tokens == 6


@pytest.mark.parametrize(
    ("key", "model", "error", "kind"),
    [
        ("wrong", "assistant", anthropic.AuthenticationError, "authentication_error"),
        (INTERACTIVE, "nope", anthropic.NotFoundError, "not_found_error"),
    ],
)
def test_the_anthropic_sdk_raises_its_own_errors(
    url: str, key: str, model: str, error: type[anthropic.APIStatusError], kind: str
) -> None:
    with anthropic.Anthropic(api_key=key, base_url=url, max_retries=0) as client, pytest.raises(error) as raised:
        client.messages.create(model=model, messages=[{"role": "user", "content": "Hello"}], max_tokens=5)

    body = raised.value.body
    assert isinstance(body, dict)
    assert body["type"] == "error"
    assert body["error"]["type"] == kind


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
    answer = client.post("/v1/images/generations", b'{"model": "assistant", "prompt": "x"}', key=PREMIUM)

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
        ("/v1/embeddings", b'{"model": "assistant", "input": []}', 400),
        ("/v1/responses", b'{"model": "assistant", "input": 7}', 400),
        ("/v1/messages", b'{"model": "assistant", "messages": [{"content": "x"}]}', 400),
        ("/v1/chat/completions", b'{"model": "assistant", "messages": [{"content": "\\ud800"}]}', 400),
        ("/v1/chat/completions", b'{"model": "assistant", "messages": [], "max_tokens": -1}', 400),
        ("/v2/models/assistant/generate", b'{"text_input": "x", "max_tokens": 5, "max_tokens": 9}', 400),
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
