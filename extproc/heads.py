"""The head of a request: its headers, and how its body will come. One that comes again and again is read twice.

Most requests of a client have the same headers but for a few that differ every time. The values of those are cut out
of Envoy's message, and what is left is looked up among the messages read before.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from google.protobuf.message import DecodeError
from msgspec.structs import replace

from extproc.events import HeadersReceived, Likeness
from extproc.headers import DIFFERENT_EVERY_TIME, Headers
from extproc.wire_format import nested, tag_of
from headgate.pb import ext_proc_pb2 as pb
from headgate.remembered import Remembered

_HEAD = tag_of(pb.ProcessingRequest, "request_headers")
"""What a message with the head of a request begins with, as Envoy writes it."""
_KEY, _RAW_VALUE = tag_of(pb.HeaderValue, "key"), tag_of(pb.HeaderValue, "raw_value")
_BEFORE = {nested(_KEY, name.encode()) + _RAW_VALUE: name for name in DIFFERENT_EVERY_TIME}
_BEFORE_VALUE = re.compile(b"(" + b"|".join(map(re.escape, _BEFORE)) + rb")[\x00-\x7f]", re.DOTALL)
"""Such a header up to its value, whose length is one byte."""
_FULL_DUPLEX, _BUFFERED = pb.ProcessingMode.FULL_DUPLEX_STREAMED, pb.ProcessingMode.BUFFERED
_MAX_BYTES = 4096
"""Longer messages are not remembered, so that those of strangers take little memory."""

_Places = tuple[tuple[str, int, int], ...]
"""Where values to be cut out stand in a message: header, begin, end."""


class _Known(NamedTuple):
    places: _Places
    head: HeadersReceived | None


_last_places: dict[int, _Places] = {}
"""By the length of the message: most that are as long as another have them in the same places."""
_known: Remembered[bytes, _Known] = Remembered(1024)
_seen_once: Remembered[int, None] = Remembered(8192)
"""Hashes of what has come once: to remember what never comes again would cost more than to read it."""


def read_head(message: bytes) -> HeadersReceived | None:
    """Read a `ProcessingRequest`; None for one that has to be read as a whole, by `headers_received`."""
    size = len(message)
    if size > _MAX_BYTES or not message.startswith(_HEAD):
        return None
    places = _last_places.get(size, ())
    rest, values = _cut(message, places)
    known = _known.get(rest)
    if known is None or known.places != places:
        places = _find(message)
        if not places:
            return None
        rest, values = _cut(message, places)
        _last_places[size] = places
        if (known := _remembered(rest, places)) is None:
            return None
    head = known.head
    if head is None:
        return None
    return HeadersReceived(head.headers.but(values), head.is_end, head.is_duplex, head.is_buffered, head.likeness)


def headers_received(request: pb.ProcessingRequest) -> HeadersReceived:
    """The head that a message holds."""
    headers = request.request_headers
    # Only the first message of a stream says in which mode Envoy sends the body.
    mode = request.protocol_config.request_body_mode
    return HeadersReceived(_headers(headers.headers), headers.end_of_stream, mode == _FULL_DUPLEX, mode == _BUFFERED)


def _find(message: bytes) -> _Places:
    """Where values to be cut out stand; nowhere when one overlaps another, or has its like."""
    places: list[tuple[str, int, int]] = []
    position = 0
    for match in _BEFORE_VALUE.finditer(message):
        begin = match.end()
        end = begin + message[begin - 1]
        if match.start() < position or end > len(message):
            return ()
        places.append((_BEFORE[match[1]], begin, end))
        position = end
    names = {name for name, _, _ in places}
    return tuple(places) if len(names) == len(places) else ()


def _cut(message: bytes, places: _Places) -> tuple[bytes, dict[str, str]]:
    rest, values, position = b"", {}, 0
    for name, begin, end in places:
        rest += message[position:begin]
        values[name] = str(message[begin:end], "utf-8", "replace")
        position = end
    return rest + message[position:], values


def _remembered(rest: bytes, places: _Places) -> _Known | None:
    """None for what comes for the first time."""
    known = _known.get(rest)
    if known is not None and known.places == places:
        return known
    if hash(rest) not in _seen_once:
        _seen_once[hash(rest)] = None
        return None
    known = _known[rest] = _Known(places, _read_rest(rest, places))
    return known


def _read_rest(rest: bytes, places: _Places) -> HeadersReceived | None:
    """The head of a message without some values; None where these do not stand in headers of their own.

    They do where whatever stands in their place is read back as the header's: lengths are all that gives a message its
    structure, and none has been cut out.
    """
    head = None
    for first in b"01":
        filled, fillers = rest, {}
        for number, (name, begin, end) in enumerate(places):
            fillers[name] = chr(first + number) * (end - begin)
            # What stood before is in its place again by now.
            filled = filled[:begin] + fillers[name].encode() + filled[begin:]
        try:
            request = pb.ProcessingRequest.FromString(filled)
        except DecodeError:
            return None
        if request.WhichOneof("request") != "request_headers":
            return None
        head = headers_received(request)
        if any(head.headers.get(name) != filler for name, filler in fillers.items()):
            return None
    return replace(head, likeness=Likeness()) if head is not None else None


def _headers(headers: pb.HeaderMap) -> Headers:
    # Envoy fills raw_value; other callers of the protocol may fill value.
    return Headers(
        [
            (header.key, raw.decode("utf-8", "replace") if (raw := header.raw_value) else header.value)
            for header in headers.headers
        ]
    )
