"""The head of a request: its headers, and how its body will come. One that comes again is read once.

Most requests of a client have the same headers but for a few that differ every time. The values of those are cut out
of Envoy's message, and what is left is looked up among the messages read before.
"""

from __future__ import annotations

import functools
import re

from google.protobuf.message import DecodeError
from msgspec.structs import replace

from extproc.events import HeadersReceived, Likeness
from extproc.headers import DIFFERENT_EVERY_TIME, Headers
from extproc.wire_format import nested, tag_of
from headgate.pb import ext_proc_pb2 as pb

HEADS = tag_of(pb.ProcessingRequest, "request_headers")
"""What a message with the head of a request begins with, as Envoy writes it."""
_KEY, _RAW_VALUE = tag_of(pb.HeaderValue, "key"), tag_of(pb.HeaderValue, "raw_value")
_BEFORE = {nested(_KEY, name.encode()) + _RAW_VALUE: name for name in DIFFERENT_EVERY_TIME}
_CUT = re.compile(b"((?:" + b"|".join(map(re.escape, _BEFORE)) + rb")[\x00-\x7f])", re.DOTALL)
"""Such a header up to its value, whose length is one byte."""
_FULL_DUPLEX, _BUFFERED = pb.ProcessingMode.FULL_DUPLEX_STREAMED, pb.ProcessingMode.BUFFERED
_MAX_BYTES = 4096
"""Longer messages are not remembered, so that those of strangers take little memory."""


def read_head(message: bytes) -> HeadersReceived | None:
    """Read a `ProcessingRequest`; None for one that has to be read as a whole, by `headers_received`."""
    if len(message) > _MAX_BYTES:
        return None
    parts = _CUT.split(message)
    values = {}
    for at in range(1, len(parts), 2):
        before, rest = parts[at], parts[at + 1]
        size = before[-1]
        if len(rest) < size:
            return None
        values[_BEFORE[before[:-1]]] = rest[:size].decode("utf-8", "replace")
        parts[at + 1] = rest[size:]
    known = _remembered(tuple(parts)) if 2 * len(values) == len(parts) - 1 else None
    if known is None:
        return None
    return HeadersReceived(known.headers.but(values), known.is_end, known.is_duplex, known.is_buffered, known.likeness)


def headers_received(request: pb.ProcessingRequest) -> HeadersReceived:
    """The head that a message holds."""
    headers = request.request_headers
    # Only the first message of a stream says in which mode Envoy sends the body.
    mode = request.protocol_config.request_body_mode
    return HeadersReceived(_headers(headers.headers), headers.end_of_stream, mode == _FULL_DUPLEX, mode == _BUFFERED)


@functools.lru_cache(maxsize=1024)
def _remembered(parts: tuple[bytes, ...]) -> HeadersReceived | None:
    """The head of a message without some values; None where these do not stand in headers of their own.

    They do where whatever stands in its place is read back as the header's: lengths are all that gives a message its
    structure, and none has been cut out.
    """
    for first in b"01":
        filled, expected = list(parts), {}
        for number, before in enumerate(parts[1::2]):
            filler = bytes([first + number]) * before[-1]
            filled[2 * number + 1] += filler
            expected[before[:-1]] = filler.decode()
        try:
            request = pb.ProcessingRequest.FromString(b"".join(filled))
        except DecodeError:
            return None
        if request.WhichOneof("request") != "request_headers":
            return None
        known = headers_received(request)
        if any(known.headers.get(_BEFORE[before]) != filler for before, filler in expected.items()):
            return None
    return replace(known, likeness=Likeness())


def _headers(headers: pb.HeaderMap) -> Headers:
    # Envoy fills raw_value; other callers of the protocol may fill value.
    return Headers(
        [
            (header.key, raw.decode("utf-8", "replace") if (raw := header.raw_value) else header.value)
            for header in headers.headers
        ]
    )
