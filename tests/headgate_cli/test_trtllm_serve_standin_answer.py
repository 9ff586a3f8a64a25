"""What the stand-in reads and says: prompts, requests and made-up answers, without any engine."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate_cli.trtllm_serve_standin.answer import Answer, FinishReason, Sampling, compose
from headgate_cli.trtllm_serve_standin.prompt import Prompt
from headgate_cli.trtllm_serve_standin.refusal import Refusal
from headgate_cli.trtllm_serve_standin.request import parse_chat, parse_completion

HELLO = Prompt.from_text("hello")


def answer(sampling: Sampling, *, prompt: Prompt = HELLO, choice: int = 0, answer_tokens: int = 100) -> Answer:
    return compose(prompt, sampling, choice=choice, answer_tokens=answer_tokens)


def text(of: Answer) -> str:
    return "".join(of.pieces)


def chat(**fields: object) -> bytes:
    return json.dumps({"model": "m", "messages": [{"role": "user", "content": "hi"}], **fields}).encode()


def completion(**fields: object) -> bytes:
    return json.dumps({"model": "m", "prompt": "hi", **fields}).encode()


@pytest.mark.parametrize(("content", "tokens"), [("", 1), ("a", 1), ("abcd", 1), ("abcde", 2), ("€" * 4, 3)])
def test_text_counts_one_token_per_four_bytes_rounded_up(content: str, tokens: int):
    assert Prompt.from_text(content).tokens == tokens


def test_token_ids_count_one_token_each():
    assert Prompt.from_token_ids([0, 1, 2**32 - 1]).tokens == 3


def test_the_same_prompt_gets_the_same_words_in_every_process():
    assert text(answer(Sampling(max_tokens=4))) == "in which they came."


def test_seed_and_choice_change_the_words():
    plain = Sampling(max_tokens=5)

    texts = {text(answer(plain)), text(answer(plain, choice=1)), text(answer(Sampling(max_tokens=5, seed=7)))}

    assert len(texts) == 3


def test_an_answer_cut_at_the_limit_says_length():
    cut = answer(Sampling(max_tokens=5))

    assert (cut.tokens, cut.finish_reason, cut.stop_reason) == (5, FinishReason.LENGTH, None)


@given(st.text(), st.integers(1, 300))
def test_an_answer_left_alone_stops_by_itself_around_the_usual_length(content: str, usual: int):
    made = answer(Sampling(max_tokens=10_000), prompt=Prompt.from_text(content), answer_tokens=usual)

    assert made.finish_reason is FinishReason.STOP
    assert max(1, usual // 2) <= made.tokens < max(2, usual * 1.5)


def test_ignore_eos_goes_on_to_the_limit():
    made = answer(Sampling(max_tokens=5000, ignore_eos=True))

    assert (made.tokens, made.finish_reason) == (5000, FinishReason.LENGTH)


def test_min_tokens_makes_an_answer_longer():
    made = answer(Sampling(max_tokens=5000, min_tokens=700))

    assert (made.tokens, made.finish_reason) == (700, FinishReason.STOP)


def test_a_stop_string_over_two_tokens_ends_the_answer_before_it():
    made = answer(Sampling(max_tokens=50, stop=("ich th", "nowhere")))

    assert (text(made), made.tokens, made.finish_reason) == ("in wh", 3, FinishReason.STOP)
    assert made.stop_reason == "ich th"


def test_a_stop_string_is_kept_when_asked_for():
    made = answer(Sampling(max_tokens=50, stop=("ich th",), include_stop=True))

    assert (text(made), made.tokens) == ("in which th", 3)


def test_an_empty_stop_string_stops_nothing():
    assert answer(Sampling(max_tokens=50, stop=("",))).tokens == 50


@given(st.text(min_size=1), st.lists(st.text(" aeinrst", min_size=1, max_size=5), max_size=3), st.integers(1, 80))
def test_no_answer_contains_a_stop_string_or_exceeds_its_limit(content: str, stop: list[str], limit: int):
    made = answer(Sampling(max_tokens=limit, stop=tuple(stop)), prompt=Prompt.from_text(content))

    assert 1 <= made.tokens == len(made.pieces) <= limit
    assert not any(word in text(made) for word in stop)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (chat(nonsense=1), "unknown field `nonsense`"),
        (chat(stream=True, stream_options={"include_usage": True, "x": 1}), "unknown field `x`"),
        (chat(tools=[{"type": "function", "function": {"name": "f", "x": 1}}]), "unknown field `x`"),
        (chat(service_tier="flex"), "unknown field `service_tier`"),
        (chat(max_tokens=1, max_completion_tokens=1), "one field"),
        (chat(messages=[]), "length >= 1"),
        (chat(messages=[{"content": "hi"}]), "missing required field `role`"),
        (chat(priority=1.5), "<= 1"),
        (chat(stream_options={}), "only be given when stream is true"),
        (completion(n=0), ">= 1"),
        (completion(n=129), "<= 128"),
        (completion(max_tokens=-1), ">= 1"),
        (completion(max_tokens="7"), "Expected `int | null`, got `str`"),
        (completion(prompt=[]), "length >= 1"),
        (completion(prompt=[1, "a"]), "mixes text and token ids"),
        (completion(prompt=[-1]), ">= 0"),
        (completion(suffix="x"), "suffix is not supported"),
        (b'{"model": "m"}', "missing required field `prompt`"),
        (b"[]", "Expected `object`, got `array`"),
        (b"", "truncated"),
        (b'{"lora_request": {"deep": ' + b"[" * 100_000, "recursion"),
    ],
)
def test_a_request_the_real_models_would_not_take_is_refused_with_400(body: bytes, message: str):
    with pytest.raises(Refusal) as caught:
        parse_chat(body) if b"messages" in body else parse_completion(body)

    assert caught.value.status == 400
    assert message in caught.value.message
    assert caught.value.body.type == "BadRequestError"


@given(st.binary() | st.recursive(st.none() | st.text(), lambda inner: st.lists(inner)).map(json.dumps).map(str.encode))
def test_parsing_raises_nothing_but_a_refusal(body: bytes):
    for parse in (parse_chat, parse_completion):
        with pytest.raises(Refusal):
            parse(body)


@pytest.mark.parametrize(
    ("prompt", "prompts"),
    [
        ("one", ["one"]),
        (["one", "two"], ["one", "two"]),
        ([1, 2], [[1, 2]]),
        ([[1, 2], [3]], [[1, 2], [3]]),
    ],
)
def test_all_four_forms_of_a_prompt_are_taken(prompt: object, prompts: list[object]):
    assert parse_completion(completion(prompt=prompt)).prompts == prompts


def test_every_field_the_real_chat_endpoint_documents_is_taken():
    parse_chat(
        chat(
            max_completion_tokens=5,
            tools=[{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}],
            tool_choice="auto",
            response_format={"type": "json_object"},
            logit_bias={"1": 2},
            seed=1,
            stop=["a"],
            stream=True,
            stream_options={"include_usage": True, "continuous_usage_stats": True},
            temperature=0,
            top_p=1,
            top_k=4,
            user="u",
            priority=0.5,
            cache_salt="s",
            chat_template_kwargs={"enable_thinking": False},
        )
    )
