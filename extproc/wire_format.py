"""Protobuf's wire format (https://protobuf.dev/programming-guides/encoding/), as far as pieces are put together here.

A reply is mostly the same few headers and words: those are serialised once, and joined as bytes.
"""

from __future__ import annotations

import functools

from google.protobuf.message import Message


def nested(tag: bytes, payload: bytes) -> bytes:
    """A length-delimited field."""
    size = len(payload)
    if size <= 0x7F:
        return tag + _SHORT[size] + payload
    if size <= 0x3FFF:
        return tag + bytes((size & 0x7F | 0x80, size >> 7)) + payload
    length = bytearray()
    while size > 0x7F:
        length.append(size & 0x7F | 0x80)
        size >>= 7
    length.append(size)
    return tag + length + payload


@functools.lru_cache(maxsize=4096)
def head(tags: tuple[bytes, ...], size: int) -> bytes:
    """What stands before a payload of so many bytes in fields within fields, the outermost tag first.

    Between two tags there may be what comes before the inner one: a tag is then longer than a byte or two.
    """
    payload = bytes(size)
    for tag in reversed(tags):
        payload = nested(tag, payload)
    return payload[: len(payload) - size]


def tag_of(message: type[Message], field: str) -> bytes:
    """What stands before a length-delimited field of the message."""
    return bytes([message.DESCRIPTOR.fields_by_name[field].number << 3 | 2])


_SHORT = [bytes([size]) for size in range(0x80)]
