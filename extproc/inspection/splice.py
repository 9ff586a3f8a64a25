"""Setting and removing top-level fields of a JSON object without touching a byte of any other value.

Clients write the long value (`messages`, `prompt`) first or right after the model, and what is edited stands in front
of it or behind it. Both ends are read here field by field, the middle is copied. Where an end cannot be read that far,
every field is taken apart and put together again, each value in its very bytes.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping

import msgspec

from extproc.inspection.json import decode

_OBJECT = msgspec.json.Decoder(dict[str, msgspec.Raw])
_WINDOW_BYTES = 1024
"""How far into each end to read; bounds the work of a body made to be slow."""
_USUAL_WINDOW_BYTES = 128
"""How far the fields at the end mostly reach; the way there is what reading them costs."""

# A key without escapes and a value that is no deeper than one level. Never backtracks into what it has matched.
_KEY = rb'"[^"\\]*+"\s*+:\s*+'
_FLAT = rb'(?:[^"\[\]{}\\]|"[^"\\]*+")*+'
_VALUE = rb'(?:"[^"\\]*+"|[-+.0-9a-zA-Z]++|\{' + _FLAT + rb"\}|\[" + _FLAT + rb"\])"
# Quotes that are part of a text stand behind a backslash, and none of these has one; so a match to the very end of a
# valid object holds an even number of real quotes, begins outside every text, and its fields are those of the object.
_LAST_FIELDS = re.compile(rb"(?:,\s*+" + _KEY + _VALUE + rb"\s*+)++\}\s*+\Z")
_FIELD = rb'\s*+"([^"\\]*+)"\s*+:\s*+(' + _VALUE + rb")\s*+"
_FIRST_FIELD, _LAST_FIELD = re.compile(_FIELD + rb","), re.compile(_FIELD + rb"[,}]")
_OPENING = re.compile(rb"\s*+\{")

Span = tuple[int, int]


def set_fields(body: bytes, changes: Mapping[str, bytes | None], present: Collection[str]) -> bytes:
    """The JSON object with `changes` made: name -> raw JSON value, None to remove it. New fields come last.

    Of a repeated field the last counts, as it does for Python's model servers; the last has the new value afterwards.

    Args:
        body: a valid JSON object with at least one field; nothing of it is checked here.
        changes: what to set; nothing to change gives the very body.
        present: those of the names that the object has.
    """
    if None in changes.values():
        return replace_fields(body, changes)
    last = _last_values(body, _USUAL_WINDOW_BYTES)
    sought = [name for name in changes if name in present]
    if not last.keys() >= set(sought):
        last = _last_values(body, _WINDOW_BYTES)
    first = {} if last.keys() >= set(sought) else _first_fields(body)
    cuts: list[tuple[Span, bytes]] = []
    added = b""
    for name, value in changes.items():
        raw = value or b""
        if name in last:
            cuts.append((last[name], raw))
            continue
        if name in present:
            if name not in first:
                return replace_fields(body, changes)
            # The long value between may hide the same name once more: at the very end the new value is the last.
            cuts += [(span, b"") for span in first[name]]
        added += b"," + msgspec.json.encode(name) + b":" + raw
    if added:
        end = body.rindex(b"}")
        cuts.append(((end, end), added))
    return _spliced(body, cuts)


def _last_values(body: bytes, window_bytes: int) -> dict[str, Span]:
    """Where the values of the fields at the end are; of a repeated one, the last."""
    found = _LAST_FIELDS.search(body, max(0, len(body) - window_bytes))
    if found is None:
        return {}
    # Behind the comma in front of the first field.
    fields = _LAST_FIELD.finditer(body, found.start() + 1)
    return {field[1].decode("utf-8", "replace"): field.span(2) for field in fields}


def _first_fields(body: bytes) -> dict[str, list[Span]]:
    """Where the fields at the beginning are, each with the comma behind it."""
    opening = _OPENING.match(body)
    position = opening.end() if opening else 0
    fields: dict[str, list[Span]] = {}
    while (field := _FIRST_FIELD.match(body, position, _WINDOW_BYTES)) is not None:
        position = field.end()
        fields.setdefault(field[1].decode("utf-8", "replace"), []).append(field.span())
    return fields


def _spliced(body: bytes, cuts: list[tuple[Span, bytes]]) -> bytes:
    # Views, because the long parts are copied once more by the join.
    view = memoryview(body)
    parts: list[bytes | memoryview] = []
    position = 0
    for (start, end), value in sorted(cuts):
        parts += (view[position:start], value)
        position = end
    return b"".join((*parts, view[position:]))


def replace_fields(body: bytes, changes: Mapping[str, bytes | None]) -> bytes:
    """Like `set_fields`, but every field is put together anew: white space between them goes, and each stands once."""
    fields = decode(body, _OBJECT)
    for name, value in changes.items():
        if value is None:
            fields.pop(name, None)
        else:
            fields[name] = msgspec.Raw(value)
    return msgspec.json.encode(fields)
