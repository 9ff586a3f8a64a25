"""Chat and completion bodies of OpenAI's API, as decisions read them."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from extproc.headers import Headers
from extproc.inspection import inspect
from extproc.inspection.request import MAX_OUTPUT_TOKENS, InferenceRequest, Prompt, RequestError
from extproc.inspection.target import Operation, Target
from extproc.tokens import estimate_tokens
from headgate.policy.model import Protocol
from tests.extproc.inspection.named import Named, without_prompt

CHAT = Target(Protocol.OPENAI, Operation.CHAT)
COMPLETION = Target(Protocol.OPENAI, Operation.COMPLETION)
TARGETS = st.sampled_from([CHAT, COMPLETION])
HELLO = "Hello, who are you?"
HELLO_TOKENS = estimate_tokens(HELLO)
TWICE_TOKENS = estimate_tokens(HELLO + HELLO)
PER_MESSAGE = 4
ESCAPED_TOKENS = estimate_tokens("\\u00e9\\ud83d\\ude00")
DEEP = "[" * 100_000 + "]" * 100_000


def read_chat(**fields: Any) -> InferenceRequest:
    return read(CHAT, {"model": "assistant", "messages": [{"role": "user", "content": HELLO}]} | fields)


def read_completion(**fields: Any) -> InferenceRequest:
    return read(COMPLETION, {"model": "assistant", "prompt": HELLO} | fields)


def read(target: Target, body: object) -> InferenceRequest:
    request = inspect(target, Headers(()), body if isinstance(body, bytes) else json.dumps(body).encode())
    return without_prompt(request)


def attempt(target: Target, body: bytes) -> InferenceRequest | None:
    """The request; None when it is refused the way bodies are refused."""
    try:
        return read(target, body)
    except RequestError:
        return None


def refused(target: Target, body: object) -> RequestError:
    with pytest.raises(RequestError) as raised:
        read(target, body)
    assert raised.value.status == 400
    return raised.value


# chat


def test_a_chat_is_read_whole() -> None:
    assert read_chat(max_tokens=50, stream=True, n=2, temperature=0.5, user="u") == InferenceRequest(
        protocol=Protocol.OPENAI,
        model="assistant",
        stream=True,
        prompt=Prompt(size_bytes=len(HELLO), tokens=HELLO_TOKENS + PER_MESSAGE, messages=1, opening=(HELLO,)),
        prompt_tokens=HELLO_TOKENS + PER_MESSAGE,
        max_output_tokens=50,
        output_limit_fields=("max_tokens",),
        choices=2,
        session="u",
        edited=Named(frozenset({"model", "max_tokens", "temperature"})),
    )


@pytest.mark.parametrize(
    ("messages", "prompt_bytes", "prompt_tokens", "images"),
    [
        ([{"role": "user", "content": HELLO}], 19, HELLO_TOKENS + PER_MESSAGE, 0),
        ([{"role": "system", "content": HELLO}, {"role": "user", "content": HELLO}], 38, TWICE_TOKENS + 8, 0),
        ([{"role": "user", "content": [{"type": "text", "text": HELLO}]}], 19, HELLO_TOKENS + PER_MESSAGE, 0),
        (
            [{"role": "user", "content": [{"text": HELLO}, {"type": "text", "text": HELLO}]}],
            38,
            TWICE_TOKENS + 4,
            0,
        ),
        ([{"role": "assistant", "content": None}], 0, PER_MESSAGE, 0),
        ([{"role": "assistant"}], 0, PER_MESSAGE, 0),
        ([{"role": "user", "content": ""}], 0, PER_MESSAGE, 0),
        ([{"role": "user", "content": []}], 0, PER_MESSAGE, 0),
        ([{}], 0, PER_MESSAGE, 0),
        ([{"role": "user", "content": "\u00e9\U0001f600"}], 18, ESCAPED_TOKENS + PER_MESSAGE, 0),
        (
            [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}]}],
            0,
            PER_MESSAGE,
            1,
        ),
        (
            [{"content": [{"type": "text", "text": HELLO}, {"type": "image_url"}, {"type": "image_url"}]}],
            19,
            HELLO_TOKENS + PER_MESSAGE,
            2,
        ),
        ([{"content": [{"type": "input_audio", "input_audio": {"data": "AAAA"}}]}], 0, PER_MESSAGE, 0),
    ],
    ids=[
        "text",
        "two messages",
        "one part",
        "two parts",
        "null content",
        "no content",
        "empty content",
        "no parts",
        "an empty message",
        "beyond ascii, in escapes as sent",
        "an image",
        "text and images",
        "a part of another kind",
    ],
)
def test_messages_count_by_their_text_and_images(
    messages: list[object], prompt_bytes: int, prompt_tokens: int, images: int
) -> None:
    request = read_chat(messages=messages)

    assert (request.prompt.size_bytes, request.prompt_tokens, request.prompt.images) == (
        prompt_bytes,
        prompt_tokens,
        images,
    )
    assert request.prompt.messages == len(messages)


def test_tools_count_by_their_json() -> None:
    tool = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}
    plain = read_chat()

    request = read_chat(tools=[tool, tool])

    text = json.dumps(tool)
    assert request.prompt.tools == 2
    assert request.prompt.size_bytes == plain.prompt.size_bytes + 2 * len(text)
    assert request.prompt_tokens == estimate_tokens(HELLO + text + text) + PER_MESSAGE


def test_tool_calls_of_earlier_turns_count_as_text() -> None:
    calls = [{"id": "c1", "type": "function", "function": {"name": "weather", "arguments": '{"city":"Bern"}'}}]

    request = read_chat(messages=[{"role": "assistant", "content": None, "tool_calls": calls}])

    assert request.prompt.size_bytes == len(json.dumps(calls))
    assert request.prompt_tokens == estimate_tokens(json.dumps(calls)) + PER_MESSAGE


@pytest.mark.parametrize("text", [b"\xff", b"\xed\xa0\x80"])
def test_text_that_is_not_utf_8_counts_by_its_bytes_where_it_is_weighed_and_is_refused_where_it_decides(
    text: bytes,
) -> None:
    body = b'{"model":"assistant","messages":[{"content":"%b"}],"tools":[{"name":"%b"}]}' % (text, text)

    assert read(CHAT, body).prompt.size_bytes == len(text) + len(b'{"name":""}') + len(text)
    assert refused(CHAT, body.replace(b"assistant", text)).message == "The request body is not valid UTF-8."


def test_a_long_prompt_is_weighed_to_within_a_few_percent_of_all_its_bytes() -> None:
    text = "The quick brown fox, 42 of them, jumps over https://example.com/ABC?x=1; twice!\n" * 4000

    request = read_chat(messages=[{"role": "user", "content": text}])

    assert request.prompt_tokens == pytest.approx(estimate_tokens(text[:8000]) * len(text) / 8000, rel=0.1)


@pytest.mark.parametrize("stream", [None, False, True])
def test_a_stream_is_asked_for_by_true_only(stream: bool | None) -> None:
    assert read_chat(stream=stream).stream is (stream is True)


# completions


@pytest.mark.parametrize(
    ("prompt", "prompt_bytes", "prompt_tokens", "messages", "choices"),
    [
        (HELLO, 19, HELLO_TOKENS, 1, 1),
        (f" {HELLO}", 20, estimate_tokens(f" {HELLO}"), 1, 1),
        ("", 0, 0, 1, 1),
        ([HELLO], 19, HELLO_TOKENS, 1, 1),
        ([HELLO, "Bye"], 22, estimate_tokens(f"{HELLO}Bye"), 2, 2),
        ([1, 2, 3], 0, 3, 1, 1),
        ([[1, 2, 3]], 0, 3, 1, 1),
        ([[1, 2, 3], [4], []], 0, 4, 3, 3),
        ([], 0, 0, 0, 1),
        ([0, 2**40], 0, 2, 1, 1),
    ],
)
def test_a_prompt_is_text_or_token_ids_or_a_list_of_either(
    prompt: object, prompt_bytes: int, prompt_tokens: int, messages: int, choices: int
) -> None:
    request = read_completion(prompt=prompt)

    assert (request.prompt.size_bytes, request.prompt_tokens) == (prompt_bytes, prompt_tokens)
    assert (request.prompt.messages, request.choices) == (messages, choices)


def test_every_prompt_of_a_list_is_answered_n_times() -> None:
    assert read_completion(prompt=["a", "b", "c"], n=4).choices == 12


@pytest.mark.parametrize(
    "prompt", [None, 7, True, 1.5, {}, {"text": "a"}, ["a", 1], [1, "a"], [["a"]], [[[1]]], [1.5], [True], [None]]
)
def test_a_prompt_of_any_other_shape_is_refused(prompt: object) -> None:
    assert refused(COMPLETION, {"model": "assistant", "prompt": prompt}).param == "prompt"


def test_a_completion_without_a_prompt_is_refused() -> None:
    assert refused(COMPLETION, {"model": "assistant"}).param == "prompt"


# the output limit


@pytest.mark.parametrize(
    ("fields", "limit", "names", "are_equal"),
    [
        ({}, None, (), True),
        ({"max_tokens": None}, None, (), True),
        ({"max_tokens": None, "max_completion_tokens": None}, None, (), True),
        ({"max_tokens": 1}, 1, ("max_tokens",), True),
        ({"max_completion_tokens": 7}, 7, ("max_completion_tokens",), True),
        ({"max_tokens": 9, "max_completion_tokens": 7}, 7, ("max_completion_tokens", "max_tokens"), False),
        ({"max_tokens": 7, "max_completion_tokens": 9}, 9, ("max_completion_tokens", "max_tokens"), False),
        ({"max_tokens": 7, "max_completion_tokens": 7}, 7, ("max_completion_tokens", "max_tokens"), True),
        ({"max_tokens": 7, "max_completion_tokens": None}, 7, ("max_tokens",), True),
        ({"max_tokens": MAX_OUTPUT_TOKENS}, MAX_OUTPUT_TOKENS, ("max_tokens",), True),
    ],
)
@pytest.mark.parametrize("read_one", [read_chat, read_completion])
def test_the_newer_name_of_the_output_limit_wins(
    read_one: Any, fields: dict[str, object], limit: int | None, names: tuple[str, ...], are_equal: bool
) -> None:
    request = read_one(**fields)

    assert request.max_output_tokens == limit
    assert request.output_limit_fields == names
    assert request.are_output_limits_equal is are_equal


@pytest.mark.parametrize("field", ["max_tokens", "max_completion_tokens"])
@pytest.mark.parametrize("value", ["0", "-1", "2147483648", "1" * 30, "1" * 5000, '"5"', "true", "1.5", "1e3", "[5]"])
@pytest.mark.parametrize("target", [CHAT, COMPLETION], ids=["chat", "completion"])
def test_an_output_limit_has_to_be_a_whole_number_a_model_can_take(target: Target, field: str, value: str) -> None:
    body = f'{{"model":"assistant","messages":[{{"content":"a"}}],"prompt":"a","{field}":{value}}}'

    error = refused(target, body.encode())

    assert error.param == field
    assert field in error.message


@pytest.mark.parametrize("n", [1, 128])
def test_n_multiplies_the_choices(n: int) -> None:
    assert read_chat(n=n).choices == n


@pytest.mark.parametrize("n", [0, -1, 129, 10**30])
def test_n_is_bounded(n: int) -> None:
    assert refused(CHAT, {"model": "a", "messages": [{"content": "a"}], "n": n}).param == "n"


def test_n_may_be_null() -> None:
    assert read_chat(n=None).choices == 1


# what is not a request


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"messages": [{"content": "a"}]}, None),
        ({"model": None, "messages": [{"content": "a"}]}, "model"),
        ({"model": 7, "messages": [{"content": "a"}]}, "model"),
        ({"model": "assistant"}, "messages"),
        ({"model": "assistant", "messages": []}, "messages"),
        ({"model": "assistant", "messages": None}, "messages"),
        ({"model": "assistant", "messages": {"role": "user"}}, "messages"),
        ({"model": "assistant", "messages": ["hi"]}, "messages[0]"),
        ({"model": "assistant", "messages": [{"content": 7}]}, "messages[0].content"),
        ({"model": "assistant", "messages": [{"content": ["a"]}]}, "messages[0].content[0]"),
        ({"model": "assistant", "messages": [{"content": [{"text": 7}]}]}, "messages[0].content[0].text"),
        ({"model": "assistant", "messages": [{"content": "a"}], "stream": "yes"}, "stream"),
        ({"model": "assistant", "messages": [{"content": "a"}], "tools": {}}, "tools"),
        ([], None),
        ("chat", None),
        (b"", None),
        (b"\xef\xbb\xbf{}", None),
        (b'{"model":"assistant","messages":[{"content":"a"}],"temperature":NaN}', None),
        (b'{"model":"assistant","messages":[{"content":"a"}],"temperature":-Infinity}', None),
        (b'{"model":"assistant","messages":[{"content":"\\ud83d"}]}', None),
        (b'{"model":"assistant","messages":[{"content":"a\n"}]}', None),
        (f'{{"model":"assistant","messages":{DEEP}}}'.encode(), "messages[0]"),
        (f'{{"model":"assistant","messages":[{{"content":"a"}}],"metadata":{DEEP}}}'.encode(), None),
        (f'{{"model":"assistant","messages":[{{"content":"a"}}],"tools":[{DEEP}]}}'.encode(), None),
        (f'{{"model":"assistant","messages":[{{"tool_calls":{DEEP}}}]}}'.encode(), None),
    ],
)
def test_a_body_that_is_no_chat_is_a_request_error_at_the_field_at_fault(body: object, param: str | None) -> None:
    assert refused(CHAT, body).param == param


def test_of_a_repeated_key_the_last_counts_as_it_does_for_python_servers() -> None:
    body = b'{"model":"a","model":"assistant","prompt":"x","max_tokens":9,"prompt":"hello","max_tokens":5}'

    request = read(COMPLETION, body)

    assert (request.model, request.prompt.size_bytes, request.max_output_tokens) == ("assistant", 5, 5)


# anything

SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10)
ANYTHING = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=4)
)
LIKELY = {
    "model": st.just("assistant") | ANYTHING,
    "prompt": st.text(max_size=10) | st.lists(st.integers() | st.text(max_size=3)) | ANYTHING,
    "messages": st.lists(st.fixed_dictionaries({}, optional={"content": ANYTHING, "tool_calls": ANYTHING})) | ANYTHING,
    "max_tokens": st.integers() | ANYTHING,
    "max_completion_tokens": st.integers() | ANYTHING,
    "n": st.integers(-1, 200) | ANYTHING,
    "stream": ANYTHING,
    "tools": st.lists(ANYTHING, max_size=3) | ANYTHING,
}


@settings(deadline=None)
@given(target=TARGETS, body=st.binary(max_size=300))
def test_any_bytes_are_a_request_or_a_request_error(target: Target, body: bytes) -> None:
    request = attempt(target, body)

    assert request is None or request.protocol is Protocol.OPENAI


@settings(deadline=None)
@given(target=TARGETS, body=st.fixed_dictionaries({}, optional=LIKELY))
def test_any_json_of_the_right_outline_is_a_request_or_a_request_error(target: Target, body: dict[str, object]) -> None:
    request = attempt(target, json.dumps(body).encode())

    if request is not None:
        assert request.model == body["model"]
        assert request.choices >= 1
        assert request.max_output_tokens is None or 1 <= request.max_output_tokens <= MAX_OUTPUT_TOKENS


@settings(deadline=None)
@given(prefix=st.integers(0, 200), byte=st.integers(0, 255))
def test_one_changed_byte_is_still_a_request_or_a_request_error(prefix: int, byte: int) -> None:
    body = bytearray(json.dumps({"model": "assistant", "messages": [{"content": HELLO}], "tools": [{"a": 1}]}).encode())
    body[prefix % len(body)] = byte

    request = attempt(CHAT, bytes(body))

    assert request is None or request.prompt.messages == 1


# what requests belong together by


@pytest.mark.parametrize(
    ("fields", "session"),
    [({}, ""), ({"user": "u"}, "u"), ({"prompt_cache_key": "k", "user": "u"}, "k"), ({"user": None}, "")],
)
def test_a_session_is_the_cache_key_or_else_the_user(fields: dict[str, object], session: str) -> None:
    assert read_chat(**fields).session == session
    assert read_completion(**fields).session == session


def test_a_conversation_begins_with_the_same_prefix_at_every_turn() -> None:
    opening = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": HELLO}]
    answer = [{"role": "assistant", "content": "An assistant."}, {"role": "user", "content": "Thanks."}]

    first, second = read_chat(messages=opening), read_chat(messages=opening + answer)

    assert first.prompt.prefix == second.prompt.prefix == "Be brief." + HELLO


def test_a_prefix_is_no_longer_than_it_has_to_be() -> None:
    assert read_chat(messages=[{"role": "user", "content": "x" * 5000}]).prompt.prefix == "x" * 1024
    assert read_completion(prompt="x" * 5000).prompt.prefix == "x" * 1024
    assert read_completion(prompt=[1, 2, 3]).prompt.prefix == "[1, 2, 3]"
