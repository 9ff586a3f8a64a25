"""gRPC's messages in an HTTP/2 body: a flag, a length of four bytes, and that many bytes, perhaps compressed.

Knows nothing of what the messages say (https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md).
"""

from __future__ import annotations

from extproc.inspection.compression import decompress
from extproc.inspection.request import RequestError

_PREFIX_BYTES = 5


class FrameReader:
    """Puts messages together from chunks of any size; keeps at most one message and a chunk.

    Args:
        encoding: the header `grpc-encoding`, for messages that say they are compressed.
        limit_bytes: the longest message, compressed or not, and the most that one chunk may decompress to.
    """

    def __init__(self, encoding: str, limit_bytes: int) -> None:
        self._encoding = encoding
        self._limit_bytes = limit_bytes
        self._chunks: list[bytes] = []
        self._held_bytes = 0
        self._needed_bytes = _PREFIX_BYTES

    @property
    def is_at_boundary(self) -> bool:
        """Whether nothing of another message has come yet."""
        return self._held_bytes == 0

    def feed(self, chunk: bytes) -> list[bytes]:
        """Take a chunk; the messages it completes, decompressed.

        Raises:
            RequestError: a message is too long, damaged, or compressed in an unknown way.
        """
        self._chunks.append(chunk)
        self._held_bytes += len(chunk)
        if self._held_bytes < self._needed_bytes:
            return []
        data = b"".join(self._chunks)
        messages, position = self._split(data)
        rest = data[position:]
        self._chunks, self._held_bytes = ([rest] if rest else []), len(rest)
        return messages

    def _split(self, data: bytes) -> tuple[list[bytes], int]:
        messages: list[bytes] = []
        position, room_bytes = 0, max(self._limit_bytes, len(data))
        self._needed_bytes = _PREFIX_BYTES
        while len(data) - position >= _PREFIX_BYTES:
            size = self._message_bytes(data, position)
            end = position + _PREFIX_BYTES + size
            if end > len(data):
                self._needed_bytes = _PREFIX_BYTES + size
                break
            message = self._plain(data[position], data[position + _PREFIX_BYTES : end], room_bytes)
            room_bytes = max(0, room_bytes - len(message))
            messages.append(message)
            position = end
        return messages, position

    def _message_bytes(self, data: bytes, position: int) -> int:
        if data[position] > 1:
            raise RequestError("The request body is not made of gRPC messages.")
        size = int.from_bytes(data[position + 1 : position + _PREFIX_BYTES], "big")
        if size > self._limit_bytes:
            message = f"A message of {size} bytes is larger than the {self._limit_bytes} bytes allowed."
            raise RequestError(message, status=413)
        return size

    def _plain(self, flag: int, message: bytes, room_bytes: int) -> bytes:
        if not flag:
            return message
        if self._encoding in ("", "identity"):
            raise RequestError("A message is compressed, but grpc-encoding names no compression.")
        return decompress(message, self._encoding, min(self._limit_bytes, room_bytes))


def only_message(body: bytes, encoding: str, limit_bytes: int) -> bytes:
    """The message of a unary call.

    Raises:
        RequestError: it is not there, not whole, not alone, too long or damaged.
    """
    reader = FrameReader(encoding, limit_bytes)
    messages = reader.feed(body)
    if len(messages) != 1 or not reader.is_at_boundary:
        raise RequestError("The call has to carry exactly one gRPC message.")
    return messages[0]


def framed(message: bytes) -> bytes:
    """A message as it travels, not compressed."""
    return b"\0" + len(message).to_bytes(4, "big") + message
