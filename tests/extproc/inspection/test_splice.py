"""Edits of a JSON object: what is named changes, and no byte of anything else."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from extproc.inspection.request import RequestError
from extproc.inspection.splice import replace_fields, set_fields

DEEP = b"[" * 100_000 + b"]" * 100_000
LONG = b'"' + b'a \\n\\"model\\":\\"x\\",}' * 200 + b'"'
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@pytest.mark.parametrize(
    ("body", "edited"),
    [
        (b'{"messages":%b,"model":"a","max_tokens":5}', b'{"messages":%b,"model":"B","max_tokens":9}'),
        (b'{"messages":%b , "model" : "a"\n}', b'{"messages":%b , "model" : "B"\n,"max_tokens":9}'),
        (b'{"model":"a","messages":%b}', b'{"messages":%b,"model":"B","max_tokens":9}'),
        (
            b'{ "stream":true, "model":"a" , "messages":%b,"max_tokens":null}\n',
            b'{ "stream":true, "messages":%b,"max_tokens":9,"model":"B"}\n',
        ),
        (
            b'{"messages":%b,"model":"a","stop":["x","]"],"stream_options":{"include_usage":true},"max_tokens":5}',
            b'{"messages":%b,"model":"B","stop":["x","]"],"stream_options":{"include_usage":true},"max_tokens":9}',
        ),
        # Behind a value that is too deep to be read over, every field is put together anew.
        (
            b'{"messages":%b, "model":"a","tools":[[{}]]}',
            b'{"messages":%b,"model":"B","tools":[[{}]],"max_tokens":9}',
        ),
        (
            b'{"messages":%b,"mod\\u0065l":"a","tools":[[{}]]}',
            b'{"messages":%b,"model":"B","tools":[[{}]],"max_tokens":9}',
        ),
        (b'{"messages":%b,"mod\\u0065l":"a"}', b'{"messages":%b,"model":"B","max_tokens":9}'),
        # Of a repeated field the last counts.
        (
            b'{"model":"z","messages":%b,"model":"a","max_tokens":5,"max_tokens":6}',
            b'{"model":"z","messages":%b,"model":"B","max_tokens":5,"max_tokens":9}',
        ),
        (
            b'{"model":"z","messages":%b,"model":"a","x":[[]],"max_tokens":6}',
            b'{"messages":%b,"model":"a","x":[[]],"max_tokens":9,"model":"B"}',
        ),
    ],
)
def test_values_at_either_end_are_changed_where_they_stand(body: bytes, edited: bytes) -> None:
    before, after = body.replace(b"%b", LONG), edited.replace(b"%b", LONG)
    present = json.loads(before).keys()

    assert set_fields(before, {"model": b'"B"', "max_tokens": b"9"}, present) == after
    assert json.loads(after) == json.loads(before) | {"model": "B", "max_tokens": 9}


def test_a_field_is_removed_wherever_it_stands() -> None:
    body = b'{"a":1,"b":{"a":2},"a":3}'

    assert set_fields(body, {"a": None}, {"a", "b"}) == b'{"b":{"a":2}}'


def test_nothing_to_change_is_the_very_body() -> None:
    body = b' {"a" : 1}'

    assert set_fields(body, {}, {"a"}) == body


def test_replaced_fields_keep_every_other_value_to_the_byte() -> None:
    body = b'{ "model" : "a",\n "t":1.10e+2, "u":"\\u00e9\xc3\xa9", "n":[ 1 , 2 ], "b":12345678901234567890123 }'

    edited = replace_fields(body, {"model": b'"b"'})

    assert edited == b'{"model":"b","t":1.10e+2,"u":"\\u00e9\xc3\xa9","n":[ 1 , 2 ],"b":12345678901234567890123}'


def test_replaced_fields_stand_once() -> None:
    assert replace_fields(b'{"a":1,"b":2,"a":3}', {}) == b'{"a":3,"b":2}'


def test_a_value_that_is_not_utf_8_passes_as_it_is() -> None:
    assert replace_fields(b'{"user":"\xff"}', {"n": b"1"}) == b'{"user":"\xff","n":1}'
    assert set_fields(b'{"user":"\xff"}', {"n": b"1"}, {"user"}) == b'{"user":"\xff","n":1}'


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b'{"\xff":1}', b'{"a":' + DEEP + b"}"])
def test_a_body_that_cannot_be_edited_is_a_request_error(body: bytes) -> None:
    with pytest.raises(RequestError):
        replace_fields(body, {"a": b"1"})


def written(fields: list[tuple[str, Any]], spaces: str, *, escaped: bool) -> bytes:
    """An object with keys as they come, repeated or not, with white space and with keys in escapes."""

    def key(name: str) -> str:
        return '"' + "".join(f"\\u{ord(c):04x}" for c in name) + '"' if escaped and name.isascii() else json.dumps(name)

    inner = f"{spaces},{spaces}".join(
        f"{key(name)}{spaces}:{spaces}{json.dumps(value, ensure_ascii=escaped)}" for name, value in fields
    )
    return f"{spaces}{{{spaces}{inner}{spaces}}}{spaces}".encode("utf-8", "replace")


NAMES = st.sampled_from(["model", "max_tokens", "messages", "m", "\u00e9", ":", 'a","model":"b', "\\", ""]) | st.text(
    max_size=4
)
TEXTS = st.sampled_from(['","model":"x"}', "foo,", "\\", 'x"', "}", ",", '{"model":1}', "a" * 300, ',"m":1}' * 40])


@settings(deadline=None)
@given(
    fields=st.lists(st.tuples(NAMES, VALUES | TEXTS | st.lists(TEXTS, max_size=3)), min_size=1, max_size=8),
    changes=st.dictionaries(NAMES, st.none() | VALUES.filter(lambda value: value is not None), max_size=4),
    spaces=st.sampled_from(["", " ", "\n\t "]),
    escaped=st.booleans(),
)
@example(fields=[("a", "foo,"), (":5,", 1), ("model", "x")], changes={"model": "y"}, spaces="", escaped=False)
@example(
    fields=[("model", "a"), ("m", "z" * 2000), ("model", "a"), ("x", [[]])],
    changes={"model": "y"},
    spaces="",
    escaped=False,
)
def test_an_edit_reads_back_as_the_change_and_nothing_else(
    fields: list[tuple[str, Any]], changes: dict[str, Any], spaces: str, escaped: bool
) -> None:
    body = written(fields, spaces, escaped=escaped)
    before = json.loads(body)
    raw = {name: None if value is None else json.dumps(value).encode() for name, value in changes.items()}

    edited = set_fields(body, raw, before.keys())

    wanted = {name: value for name, value in (before | changes).items() if changes.get(name, 0) is not None}
    assert json.loads(edited) == wanted
    assert raw_values(edited, changes.keys()) == raw_values(body, changes.keys())


def raw_values(body: bytes, without: Any) -> dict[str, bytes]:
    fields = msgspec.json.decode(body, type=dict[str, msgspec.Raw])
    return {name: bytes(value) for name, value in fields.items() if name not in without}
