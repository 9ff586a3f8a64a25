"""JSON at the edge: every failure is one `RequestError`."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from extproc.inspection.json import decode
from extproc.inspection.request import RequestError


class Shape(msgspec.Struct):
    name: str
    counts: list[int] = msgspec.field(default_factory=list)


SHAPE = msgspec.json.Decoder(Shape)
DEEP = b"[" * 100_000 + b"]" * 100_000


def test_fields_the_shape_does_not_name_are_skipped() -> None:
    assert decode(b'{"name":"a","other":{"deep":[1,2,{"x":null}]},"counts":[1]}', SHAPE) == Shape("a", [1])


@pytest.mark.parametrize(
    ("body", "message", "param"),
    [
        (b"", "The request has no body; a JSON object is expected.", None),
        (b"{}", "Invalid request: Object missing required field 'name'.", None),
        (b"null", "Invalid request: Expected 'object', got 'null'.", None),
        (b"[]", "Invalid request: Expected 'object', got 'array'.", None),
        (b'"name"', "Invalid request: Expected 'object', got 'str'.", None),
        (b'{"name":7}', "Invalid request: Expected 'str', got 'int' in 'name'.", "name"),
        (
            b'{"name":"a","counts":[1,"2"]}',
            "Invalid request: Expected 'int', got 'str' in 'counts[1]'.",
            "counts[1]",
        ),
        (b'{"name":"\xff"}', "The request body is not valid UTF-8.", None),
        (b'{"name":"a","other":' + DEEP + b"}", "The request body is nested too deeply.", None),
    ],
)
def test_a_body_that_is_not_what_it_should_be_is_explained(body: bytes, message: str, param: str | None) -> None:
    with pytest.raises(RequestError) as raised:
        decode(body, SHAPE)

    assert (raised.value.message, raised.value.param, raised.value.status) == (message, param, 400)


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b'{"name":"a"',
        b'{"name":"a",}',
        b"{'name':'a'}",
        b'{"name":"a"} {"name":"b"}',
        b'{"name":"a","other":NaN}',
        b'{"name":"a","other":-Infinity}',
        b'{"name":"a","other":01}',
        b'{"name":"a\n"}',
        b'{"name":"\\ud800"}',
        b'\xef\xbb\xbf{"name":"a"}',
        b"\x00",
        " \u2028{}".encode(),
        '{"name":"a"}'.encode("utf-16"),
    ],
)
def test_what_is_not_json_is_said_to_be_none(body: bytes) -> None:
    with pytest.raises(RequestError, match=r"The request body is not valid JSON: "):
        decode(body, SHAPE)


def test_a_message_never_repeats_the_clients_text() -> None:
    with pytest.raises(RequestError) as raised:
        decode(b'{"name":{"secret prompt":1}}', SHAPE)

    assert "secret" not in str(raised.value)


@settings(deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_decode_or_raise_a_request_error(body: bytes) -> None:
    try:
        decoded = decode(body, SHAPE)
    except RequestError as error:
        decoded = error
    assert isinstance(decoded, Shape) or decoded.message.endswith(".")


@pytest.mark.parametrize(
    ("at", "value", "param"),
    [
        ("messages[3].content", b"7", "messages[3].content"),
        ("messages[3].content", b'{"name":7}', "messages[3].content.name"),
        ("tools", b'{"name":"a","counts":[1,true]}', "tools.counts[1]"),
        ("tools", b"{", "tools"),
        ("tools", b'{"name":"\xff"}', "tools"),
        ("tools", b'{"name":"a","other":' + DEEP + b"}", "tools"),
    ],
)
def test_a_value_within_a_body_is_named_by_its_whole_path(at: str, value: bytes, param: str) -> None:
    with pytest.raises(RequestError) as raised:
        decode(value, SHAPE, at)

    assert raised.value.param == param
