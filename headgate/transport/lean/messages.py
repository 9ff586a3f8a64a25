"""gRPC messages out of the bytes of DATA frames: a flag, a length, the message, compressed if it says so.

A message is refused by its announced length, before any of it is kept.
"""

from __future__ import annotations

import zlib
from struct import Struct
from typing import Final

from headgate.transport import RpcError, StatusCode

PREFIX_BYTES: Final = 5
_PREFIX: Final = Struct(">BI")
_WINDOW_BITS: Final = {"gzip": 31, "deflate": 15}


class Deframer:
    """Cuts one stream's bytes into messages; only for streams whose messages do not come one a frame."""

    __slots__ = ("_data", "_encoding", "_max_message_bytes")

    def __init__(self, max_message_bytes: int, encoding: str) -> None:
        self._data = bytearray()
        self._max_message_bytes = max_message_bytes
        self._encoding = encoding

    @property
    def kept_bytes(self) -> int:
        """How much of an incomplete message is held."""
        return len(self._data)

    @property
    def missing_bytes(self) -> int:
        """How much the message begun still needs; 0 between messages."""
        if len(self._data) < PREFIX_BYTES:
            return 0
        return PREFIX_BYTES + int.from_bytes(self._data[1:PREFIX_BYTES], "big") - len(self._data)

    def feed(self, data: bytes) -> list[bytes]:
        """The messages that are complete now.

        Raises:
            RpcError: a message is too long, or compressed in a way nobody can read.
        """
        self._data += data
        messages = []
        while len(self._data) >= PREFIX_BYTES:
            flag, size = _PREFIX.unpack_from(self._data)
            if size > self._max_message_bytes:
                raise too_long(size, self._max_message_bytes)
            end = PREFIX_BYTES + size
            if len(self._data) < end:
                break
            message = bytes(memoryview(self._data)[PREFIX_BYTES:end])
            del self._data[:end]
            messages.append(plain(flag, message, self._encoding, self._max_message_bytes))
        return messages


def plain(flag: int, message: bytes, encoding: str, max_message_bytes: int) -> bytes:
    """A message as its sender meant it.

    Raises:
        RpcError: UNIMPLEMENTED for an encoding we lack, INTERNAL for bytes that are not in it, RESOURCE_EXHAUSTED when
            there is too much in it.
    """
    if flag == 0:
        return message
    if flag != 1:
        raise RpcError(StatusCode.INTERNAL, "a message with unknown flags")
    if encoding == "identity":
        raise RpcError(StatusCode.INTERNAL, "a compressed message without grpc-encoding")
    inflater = zlib.decompressobj(_WINDOW_BITS[encoding])
    try:
        inflated = inflater.decompress(message, max_message_bytes + 1)
    except zlib.error:
        raise RpcError(StatusCode.INTERNAL, f"a message that is not {encoding}") from None
    if len(inflated) > max_message_bytes:
        raise too_long(len(inflated), max_message_bytes)
    if not inflater.eof:
        raise RpcError(StatusCode.INTERNAL, f"a message that is not whole in {encoding}")
    return inflated


def is_known_encoding(encoding: str) -> bool:
    """Whether messages so compressed can be read."""
    return encoding == "identity" or encoding in _WINDOW_BITS


def too_long(size: int, limit: int) -> RpcError:
    """What ends a stream with a message beyond the limit."""
    return RpcError(StatusCode.RESOURCE_EXHAUSTED, f"a message of {size} bytes is larger than the {limit} allowed")
