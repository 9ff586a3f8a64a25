"""What the benchmark sends is what it says."""

from __future__ import annotations

import json

import pytest

from bench.inspect.bodies import chat_body
from bench.inspect.corpus import mixed, texts
from bench.inspect.reading import cost


@pytest.mark.parametrize("size", [1024, 32_768, 220_000])
def test_a_prompt_has_the_size_asked_for_and_its_body_holds_all_of_it(size: int) -> None:
    prompt = mixed(size)

    assert size - 4 <= len(prompt.encode()) <= size
    messages = json.loads(chat_body(prompt))["messages"]
    assert "".join(message["content"] for message in messages) == prompt


def test_there_is_enough_of_every_kind_of_text() -> None:
    assert {kind for kind, text in texts().items() if len(text) >= 20_000} == {
        "english",
        "code",
        "json",
        "cjk",
        "base64",
    }


def test_a_cost_is_of_the_intended_edit() -> None:
    figure = cost("x", chat_body(mixed(1024)), tries=1)

    assert figure.speedup == pytest.approx(figure.json_us / (figure.read_us + figure.edit_us))
    assert figure.allocated_bytes > 0
