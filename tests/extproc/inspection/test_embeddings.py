"""Embeddings bodies of OpenAI's API: texts in any of four shapes, and no output."""

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

TARGET = Target(Protocol.OPENAI, Operation.EMBEDDINGS)


def read(**fields: Any) -> InferenceRequest:
    request = inspect(TARGET, Headers(()), json.dumps({"model": "assistant"} | fields).encode())
    return without_prompt(request)


@pytest.mark.parametrize(
    ("value", "prompt_bytes", "prompt_tokens", "messages", "prompt_prefix"),
    [
        ("Hello", 5, estimate_tokens("Hello"), 1, "Hello"),
        ("", 0, 0, 1, ""),
        (["Hello", "Bye"], 8, estimate_tokens("HelloBye"), 2, "Hello"),
        ([1, 2, 3], 0, 3, 1, "[1, 2, 3]"),
        ([[1, 2, 3], [4]], 0, 4, 2, "[[1, 2, 3], [4]]"),
    ],
)
def test_the_input_is_text_token_ids_or_a_list_of_either(
    value: object, prompt_bytes: int, prompt_tokens: int, messages: int, prompt_prefix: str
) -> None:
    assert read(input=value, encoding_format="base64", dimensions=8) == InferenceRequest(
        protocol=Protocol.OPENAI,
        operation=Operation.EMBEDDINGS,
        model="assistant",
        prompt=Prompt(size_bytes=prompt_bytes, tokens=prompt_tokens, opening=(prompt_prefix,), messages=messages),
        prompt_tokens=prompt_tokens,
        has_output=False,
        edited=Named(frozenset({"model"})),
    )


@pytest.mark.parametrize("value", [None, 7, {}, [], [1, "a"], ["a", 1], [[["a"]]], [["a"]], [None], [1.5], [True]])
def test_an_input_of_any_other_shape_is_refused(value: object) -> None:
    with pytest.raises(RequestError) as raised:
        read(input=value)

    assert raised.value.param == "input"
