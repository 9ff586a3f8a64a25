"""Messages bodies of Anthropic's API."""

from __future__ import annotations

import json
from typing import Any

import pytest

from extproc.headers import Headers
from extproc.inspection import inspect
from extproc.inspection.request import InferenceRequest, Prompt, RequestError
from extproc.inspection.target import Operation, Target
from extproc.tokens import estimate_tokens
from headgate.policy.model import Protocol
from tests.extproc.inspection.named import Named, without_prompt

TARGET = Target(Protocol.ANTHROPIC, Operation.MESSAGES)
TOOL = {"name": "weather", "input_schema": {"type": "object"}}
IMAGE = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "A" * 1000}}


def read(**fields: Any) -> InferenceRequest:
    body = {"model": "assistant", "max_tokens": 50, "messages": [{"role": "user", "content": "Hello"}]} | fields
    request = inspect(TARGET, Headers(()), json.dumps(body).encode())
    return without_prompt(request)


def test_a_message_is_read_whole() -> None:
    request = read(system="Be brief.", stream=True, tools=[TOOL], temperature=0.5, metadata={"user_id": "someone"})

    text = "Be brief.Hello" + json.dumps(TOOL)
    assert request == InferenceRequest(
        protocol=Protocol.ANTHROPIC,
        operation=Operation.MESSAGES,
        model="assistant",
        stream=True,
        prompt=Prompt(
            size_bytes=len(text), tokens=estimate_tokens(text) + 4, messages=1, tools=1, opening=("Be brief.Hello",)
        ),
        prompt_tokens=estimate_tokens(text) + 4,
        max_output_tokens=50,
        output_limit_fields=("max_tokens",),
        edited=Named(frozenset({"model", "max_tokens", "temperature"})),
        session="someone",
    )


def test_a_conversation_begins_with_the_same_prefix_at_every_turn() -> None:
    opening = [{"role": "user", "content": [{"type": "text", "text": "Hello"}]}]
    answer = [{"role": "assistant", "content": "Hi."}, {"role": "user", "content": "Thanks."}]

    first, second = read(system="Be brief.", messages=opening), read(system="Be brief.", messages=opening + answer)

    assert first.prompt.prefix == second.prompt.prefix == "Be brief.Hello"


@pytest.mark.parametrize("metadata", [None, {}, {"user_id": None}, {"anything": 1}])
def test_without_a_users_id_there_is_no_session(metadata: object) -> None:
    assert read(metadata=metadata).session == ""


@pytest.mark.parametrize(
    ("content", "text", "images"),
    [
        ([{"type": "text", "text": "Hello"}], "Hello", 0),
        ([IMAGE, {"type": "text", "text": "What is it?"}], "What is it?", 1),
        ([{"type": "tool_use", "id": "t", "name": "weather", "input": {"city": "Bern"}}], '{"city": "Bern"}', 0),
        ([{"type": "tool_result", "tool_use_id": "t", "content": "12 degrees"}], "12 degrees", 0),
        ([{"type": "tool_result", "tool_use_id": "t", "content": [IMAGE, {"type": "text", "text": "x"}]}], "x", 1),
        ([{"type": "thinking", "thinking": "hm", "signature": "s"}], "hm", 0),
    ],
)
def test_blocks_count_by_what_the_model_reads_of_them(content: list[object], text: str, images: int) -> None:
    request = read(messages=[{"role": "user", "content": content}])

    assert (request.prompt.size_bytes, request.prompt.images) == (len(text), images)
    assert request.prompt_tokens == estimate_tokens(text) + 4


def test_blocks_within_blocks_count_as_text_beyond_what_any_client_sends() -> None:
    content: object = "x"
    for _ in range(200):
        content = [{"type": "tool_result", "content": content}]

    assert read(messages=[{"role": "user", "content": content}]).prompt.size_bytes > 1000


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"max_tokens": None}, "max_tokens"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": "5"}, "max_tokens"),
        ({"messages": []}, "messages"),
        ({"messages": [{"content": 7}]}, "messages[0].content"),
        ({"messages": [{"content": [{"type": 7}]}]}, "messages[0].content[0].type"),
        ({"system": 7}, "system"),
        ({"model": None}, "model"),
    ],
)
def test_what_is_no_messages_request_is_refused_at_the_field_at_fault(fields: dict[str, object], param: str) -> None:
    with pytest.raises(RequestError) as raised:
        read(**fields)

    assert raised.value.param == param
