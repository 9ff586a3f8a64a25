"""What ratelimit is asked to charge and what the access log says was used."""

from __future__ import annotations

import gzip
from types import SimpleNamespace
from typing import Any

import pytest

Stack = Any

JSON_RESPONSE_BYTES = 9 * 1024 * 1024


def test_ratelimit_is_asked_for_requests_and_tokens_and_told_the_protocol(stack: Stack) -> None:
    stack.post()

    (asked,) = stack.ratelimit.requests
    assert asked.domain == "headgate"
    assert [{entry.key: entry.value for entry in descriptor.entries} for descriptor in asked.descriptors] == [
        {"tenant": "acme", "limit": "requests"},
        {"tenant": "acme", "limit": "tokens"},
        {"protocol": "openai"},
    ]


# A million is where a number printed from a double turns into 1e+06.
@pytest.mark.parametrize("tokens", [0, 1, 999_999, 1_000_000, 1_234_567, 2_000_000, 1_000_000_000])
def test_the_charge_arrives_to_the_token(stack: Stack, say: SimpleNamespace, tokens: int) -> None:
    stack.extproc.on_body = lambda _: say.routed("standard", charged_tokens=tokens)

    stack.post()

    requests, charged, protocol = stack.ratelimit.requests[0].descriptors
    assert charged.HasField("hits_addend")
    assert charged.hits_addend.value == tokens
    assert not requests.HasField("hits_addend")
    assert not protocol.HasField("hits_addend")


OPENAI = b'{"usage": {"prompt_tokens": 11, "completion_tokens": 22, "prompt_tokens_details": {"cached_tokens": 4}}}'
RESPONSES = b'{"input_tokens": 11, "output_tokens": 22, "input_tokens_details": {"cached_tokens": 4}}'
TRITON = b'{"text_output": "a", "num_input_tokens": 11, "num_output_tokens": 22}'


@pytest.mark.parametrize("content_type", ["application/json", "application/json; charset=utf-8"])
@pytest.mark.parametrize(
    ("body", "cached"),
    [
        (OPENAI, {"cached_tokens": 4}),
        (TRITON, {}),
        (b'{"usage": %b}' % RESPONSES, {"cached_tokens": 4}),
        (b'{"usage": {"input_tokens": 11, "output_tokens": 22, "cache_read_input_tokens": 4}}', {"cached_tokens": 4}),
    ],
)
def test_usage_of_a_document_is_in_the_record(
    stack: Stack, content_type: str, body: bytes, cached: dict[str, int]
) -> None:
    stack.models["standard"].content_type, stack.models["standard"].chunks = content_type, (body,)

    assert stack.post().body == body

    assert stack.metadata("headgate.usage") == {"prompt_tokens": 11, "completion_tokens": 22} | cached


@pytest.mark.parametrize("content_type", ["text/event-stream", "text/event-stream; charset=utf-8"])
def test_usage_of_a_stream_is_the_last_it_says(stack: Stack, content_type: str) -> None:
    model = stack.models["standard"]
    first = b'data: {"usage": {"prompt_tokens": 11, "completion_tokens": 1}}\n\ndata: {"usage": null}\n\n'
    # Events do not end where chunks do.
    model.content_type, model.chunks = (
        content_type,
        (first[:20], first[20:] + b"data: " + OPENAI, b"\n\ndata: [DONE]\n\n"),
    )

    stack.post()

    used = {"prompt_tokens": 11, "completion_tokens": 22, "cached_tokens": 4}
    assert stack.metadata("headgate.usage") == used | {"stream_events": 4}


USAGE = '{"choices": [], "usage": {"prompt_tokens": 11, "completion_tokens": 22}}'


@pytest.mark.parametrize("is_in_pieces", [False, True], ids=["at once", "byte by byte"])
@pytest.mark.parametrize(
    ("stream", "events"),
    [
        (f"data: {{}}\r\n\r\ndata: {USAGE}\r\n\r\ndata: [DONE]\r\n\r\n", {"stream_events": 3}),
        (f"data: {{}}\r\rdata: {USAGE}\r\rdata: [DONE]\r\r", {}),
        (f"data:{{}}\n\ndata:{USAGE}\n\ndata:[DONE]\n\n", {"stream_events": 3}),
        (f': data: {{"usage": {{"prompt_tokens": 9}}}}\n\ndata: {USAGE}\n\n:\n\n', {"stream_events": 1}),
        ("data: " + USAGE.replace(", ", ",\ndata: ", 1) + "\n\n", {"stream_events": 2}),
        (f"event: message\nid: 7\nretry: 10\ndata: {USAGE}\n\n", {"stream_events": 1}),
        (f'data: {{"text": "h\u00e9llo \u4e16\u754c \U0001f389"}}\n\ndata: {USAGE}\n\n', {"stream_events": 2}),
        (f'data: {{"usage": null}}\n\ndata: {USAGE}\n\ndata: {{"usage": null}}\n\n', {"stream_events": 3}),
    ],
    ids=["CRLF", "CR", "no space", "comments", "two lines", "other fields", "UTF-8", "null around it"],
)
def test_usage_of_a_stream_is_read_however_its_lines_are_written(
    stack: Stack, stream: str, events: dict[str, int], is_in_pieces: bool
) -> None:
    body, model = stream.encode(), stack.models["standard"]
    model.content_type = "text/event-stream"
    model.chunks = tuple(bytes([byte]) for byte in body) if is_in_pieces else (body,)

    assert stack.post().body == body

    assert stack.metadata("headgate.usage") == {"prompt_tokens": 11, "completion_tokens": 22} | events


@pytest.mark.parametrize(
    ("end", "events"),
    [("\n", 2), ("", 1), ("\ndata: [DONE]\n", 3)],
    ids=["an event without end", "a line without end", "lines for events"],
)
def test_usage_in_an_event_that_never_ends_is_none_and_its_lines_still_count(
    stack: Stack, end: str, events: int
) -> None:
    body, model = f"data: {{}}\n\ndata: {USAGE}{end}".encode(), stack.models["standard"]
    model.content_type, model.chunks = "text/event-stream", (body,)

    assert stack.post().body == body

    assert stack.metadata("headgate.usage") == {"stream_events": events}


@pytest.mark.parametrize(
    ("used", "read"),
    [
        ('{"prompt_tokens": "11", "completion_tokens": "22"}', {"prompt_tokens": 11, "completion_tokens": 22}),
        ('{"prompt_tokens": 11.5, "completion_tokens": 2.5}', {"prompt_tokens": 11.5, "completion_tokens": 2.5}),
        ('{"prompt_tokens": "many", "completion_tokens": 22}', {"completion_tokens": 22}),
        ('{"prompt_tokens": {}, "completion_tokens": [3]}', {}),
        ('{"prompt_tokens": null, "completion_tokens": null}', {}),
        ('{"prompt_tokens": 1e400, "completion_tokens": 3}', {}),
        ("null", {}),
        ("[11, 22]", {}),
        ("{}", {}),
    ],
)
@pytest.mark.parametrize("is_stream", [False, True])
def test_numbers_that_are_none_are_left_out_and_harm_no_answer(
    stack: Stack, used: str, read: dict[str, float], is_stream: bool
) -> None:
    body, model = f'{{"usage": {used}}}', stack.models["standard"]
    if is_stream:
        body, model.content_type = f"data: {body}\n\n", "text/event-stream"
    model.chunks = (body.encode(),)

    response = stack.post()

    assert (response.status, response.body) == (200, body.encode())
    assert stack.metadata("headgate.usage") == read | ({"stream_events": 1} if is_stream else {})


@pytest.mark.parametrize("content_type", ["text/event-stream", "application/json"])
def test_a_compressed_answer_passes_and_shows_neither_usage_nor_events(stack: Stack, content_type: str) -> None:
    text = f"data: {USAGE}\n\n" if "event" in content_type else USAGE
    # A time whose bytes look like the ends of lines.
    body = gzip.compress(text.encode(), mtime=int.from_bytes(b"\n\n\n\n", "little"))
    model = stack.models["standard"]
    model.content_type, model.headers, model.chunks = content_type, ("content-encoding: gzip",), (body,)

    assert stack.post().body == body

    assert stack.metadata("headgate.usage") == {}


@pytest.mark.parametrize(
    "events",
    [
        (b'{"type": "response.created", "response": {"usage": null}}', b'{"response": {"usage": %b}}' % RESPONSES),
        (
            b'{"message": {"usage": {"input_tokens": 11, "cache_read_input_tokens": 4, "output_tokens": 1}}}',
            b'{"type": "message_delta", "usage": {"output_tokens": 22}}',
            b'{"type": "message_stop"}',
        ),
    ],
    ids=["responses", "messages"],
)
def test_usage_of_the_newer_streams_is_put_together_from_their_events(stack: Stack, events: tuple[bytes, ...]) -> None:
    model = stack.models["standard"]
    model.content_type = "text/event-stream"
    model.chunks = tuple(b"event: x\ndata: " + event + b"\n\n" for event in events)

    stack.post()

    used = {"prompt_tokens": 11, "completion_tokens": 22, "cached_tokens": 4}
    assert stack.metadata("headgate.usage") == used | {"stream_events": len(events)}


def test_what_the_events_of_triton_say_came_out_is_added_up(stack: Stack) -> None:
    model = stack.models["standard"]
    model.content_type, model.chunks = "text/event-stream", (b"data: " + TRITON + b"\n\n",) * 2

    stack.post()

    used = {"prompt_tokens": 11, "completion_tokens": 44, "stream_events": 2}
    assert stack.metadata("headgate.usage") == used


@pytest.mark.parametrize("body", [b"no json", b"[1]", b'{"usage": "much"}', b""])
def test_a_response_without_usage_passes_as_it_is(stack: Stack, body: bytes) -> None:
    stack.models["standard"].chunks = (body,)

    assert stack.post().body == body

    assert stack.metadata("headgate.usage") == {}


def test_a_json_response_may_be_longer_than_a_request(stack: Stack) -> None:
    stack.models["standard"].chunks = (b'{"x": "', b"y" * JSON_RESPONSE_BYTES, b'"}')

    assert len(stack.post().body) == JSON_RESPONSE_BYTES + 9


def test_a_record_holds_what_ext_proc_said(stack: Stack) -> None:
    stack.post()

    said = {"decision": "admit", "model": "assistant", "protocol": "openai", "charged_tokens": 7}
    assert said.items() <= stack.metadata("headgate").items()
    assert stack.record().common_properties.upstream_cluster == "standard"
