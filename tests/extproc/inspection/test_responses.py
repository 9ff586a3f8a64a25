"""Responses bodies of OpenAI's API."""

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

TARGET = Target(Protocol.OPENAI, Operation.RESPONSES)
TOOL = {"type": "function", "name": "weather", "parameters": {"type": "object"}}


def read(**fields: Any) -> InferenceRequest:
    body = json.dumps({"model": "assistant", "input": "Hello"} | fields).encode()
    request = inspect(TARGET, Headers(()), body)
    return without_prompt(request)


def test_a_response_is_read_whole() -> None:
    request = read(instructions="Be brief.", max_output_tokens=50, stream=True, tools=[TOOL], service_tier="flex")

    text = "HelloBe brief." + json.dumps(TOOL)
    assert request == InferenceRequest(
        protocol=Protocol.OPENAI,
        operation=Operation.RESPONSES,
        model="assistant",
        stream=True,
        prompt=Prompt(
            size_bytes=len(text), tokens=estimate_tokens(text) + 4, messages=1, tools=1, opening=("Be brief.Hello",)
        ),
        prompt_tokens=estimate_tokens(text) + 4,
        max_output_tokens=50,
        output_limit_fields=("max_output_tokens",),
        service_tier="flex",
        edited=Named(frozenset({"model", "max_output_tokens", "service_tier"})),
    )


def test_a_conversation_begins_with_the_same_prefix_at_every_turn() -> None:
    opening = [{"role": "developer", "content": "Be brief."}, {"role": "user", "content": "Hello"}]
    answer = [{"role": "assistant", "content": "Hi."}, {"role": "user", "content": "Thanks."}]

    first, second = read(input=opening), read(input=opening + answer)

    assert first.prompt.prefix == second.prompt.prefix == "Be brief.Hello"


def test_a_session_is_the_cache_key_or_else_the_user() -> None:
    assert read(user="u").session == "u"
    assert read(user="u", prompt_cache_key="k").session == "k"


@pytest.mark.parametrize(
    ("items", "text", "images"),
    [
        ([{"role": "user", "content": "Hello"}], "Hello", 0),
        ([{"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Hello"}]}], "Hello", 0),
        ([{"content": [{"type": "input_image", "image_url": "data:image/png;base64,AAAA"}]}], "", 1),
        ([{"type": "function_call", "name": "f", "arguments": '{"a":1}'}], json.dumps('{"a":1}'), 0),
        ([{"type": "function_call_output", "call_id": "c", "output": "42"}], "42", 0),
        ([{"type": "reasoning", "summary": [{"type": "summary_text", "text": "so"}]}], "so", 0),
        ([{"type": "item_reference", "id": "i"}], "", 0),
    ],
)
def test_items_count_by_what_the_model_reads_of_them(items: list[object], text: str, images: int) -> None:
    request = read(input=items)

    assert (request.prompt.size_bytes, request.prompt.images, request.prompt.messages) == (len(text), images, 1)
    assert request.prompt_tokens == estimate_tokens(text) + 4


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"input": None}, "input"),
        ({"input": 7}, "input"),
        ({"input": []}, "input"),
        ({"input": ["a"]}, "input[0]"),
        ({"input": [{"content": 7}]}, "input[0].content"),
        ({"input": [{"content": [{"text": 7}]}]}, "input[0].content[0].text"),
        ({"instructions": {}}, "instructions"),
        ({"max_output_tokens": 0}, "max_output_tokens"),
        ({"tools": 7}, "tools"),
        ({"stream_options": {"a": "b" * 2000}}, "stream_options"),
        ({"service_tier": "b" * 65}, "service_tier"),
        ({"service_tier": 7}, "service_tier"),
    ],
)
def test_what_is_no_response_request_is_refused_at_the_field_at_fault(fields: dict[str, object], param: str) -> None:
    with pytest.raises(RequestError) as raised:
        read(**fields)

    assert raised.value.param == param
