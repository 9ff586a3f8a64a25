"""JSON at the edge: every failure is one `RequestError`, and edits touch nothing but what they name."""

from __future__ import annotations

import json

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from extproc.inspection.json import decode, replace_fields
from extproc.inspection.request import RequestError


class Shape(msgspec.Struct):
    name: str
    counts: list[int] = msgspec.field(default_factory=list)


SHAPE = msgspec.json.Decoder(Shape)
ANYTHING = msgspec.json.Decoder()
DEEP = b"[" * 100_000 + b"]" * 100_000
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


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


def test_replaced_fields_keep_every_other_value_to_the_byte() -> None:
    body = b'{ "model" : "a",\n "t":1.10e+2, "u":"\\u00e9\xc3\xa9", "n":[ 1 , 2 ], "b":12345678901234567890123 }'

    edited = replace_fields(body, {"model": b'"b"'})

    assert edited == b'{"model":"b","t":1.10e+2,"u":"\\u00e9\xc3\xa9","n":[ 1 , 2 ],"b":12345678901234567890123}'


def test_a_new_field_comes_last() -> None:
    assert replace_fields(b'{"a":1}', {"max_tokens": b"5"}) == b'{"a":1,"max_tokens":5}'


def test_of_a_repeated_field_the_last_stays() -> None:
    assert replace_fields(b'{"a":1,"b":2,"a":3}', {}) == b'{"a":3,"b":2}'


def test_a_value_that_is_not_utf_8_passes_as_it_is() -> None:
    assert replace_fields(b'{"user":"\xff"}', {"n": b"1"}) == b'{"user":"\xff","n":1}'


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b'{"\xff":1}', b'{"a":' + DEEP + b"}"])
def test_a_body_that_cannot_be_edited_is_a_request_error(body: bytes) -> None:
    with pytest.raises(RequestError):
        replace_fields(body, {"a": b"1"})


@settings(deadline=None)
@given(
    before=st.dictionaries(st.text(max_size=5), VALUES, max_size=5),
    changes=st.dictionaries(st.text(max_size=5), VALUES, max_size=3),
)
def test_an_edit_reads_back_as_the_change_and_nothing_else(
    before: dict[str, object], changes: dict[str, object]
) -> None:
    body = json.dumps(before, indent=1).encode()

    edited = replace_fields(body, {name: json.dumps(value).encode() for name, value in changes.items()})

    assert json.loads(edited) == before | changes
    assert decode(edited, ANYTHING) == decode(json.dumps(before | changes).encode(), ANYTHING)
