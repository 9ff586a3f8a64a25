"""Protobuf's wire format (https://protobuf.dev/programming-guides/encoding/), as far as pieces are put together here.

A reply is mostly the same few headers and words: those are serialised once, and joined as bytes.
"""

from __future__ import annotations

import functools

from google.protobuf.message import Message


def nested(tag: bytes, payload: bytes) -> bytes:
    """A length-delimited field."""
    return head((tag,), len(payload)) + payload


@functools.lru_cache(maxsize=4096)
def head(tags: tuple[bytes, ...], size: int) -> bytes:
    """What stands before a payload of so many bytes in fields within fields, the outermost tag first.

    A tag may begin with what stands before it in the field around it.
    """
    before = b""
    for tag in reversed(tags):
        before = tag + _varint(size + len(before)) + before
    return before


def tag_of(message: type[Message], field: str) -> bytes:
    """What stands before a length-delimited field of the message."""
    return bytes([message.DESCRIPTOR.fields_by_name[field].number << 3 | 2])


def _varint(number: int) -> bytes:
    encoded = bytearray()
    while number > 0x7F:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)
