"""Header blocks: read with `hpack`, remembered where that is sound, and written without any state.

We ask every peer for a header table of size 0. From the moment it complies a block means the same whenever it is
sent, so the blocks of a connection's calls, which are all alike, are decoded once for the whole server.
"""

from __future__ import annotations

from typing import cast

import hpack

from headgate.remembered import Remembered
from headgate.transport.lean.frames import END_STREAM, ConnectionFault, ErrorCode
from headgate.transport.lean.request_head import HeaderList, RequestHead, parse_head

MAX_HEADER_LIST_BYTES = 65_536
MAX_BLOCK_BYTES = MAX_HEADER_LIST_BYTES
"""Of one compressed block, all its frames together."""
_MAX_REMEMBERED = 512
_MAX_REMEMBERED_BYTES = 1024


class RememberedHeads:
    """The heads of blocks seen before; one for all connections of a server."""

    def __init__(self) -> None:
        self._heads: Remembered[bytes, RequestHead] = Remembered(_MAX_REMEMBERED)
        self.find = self._heads.get

    def remember(self, block: bytes, head: RequestHead) -> None:
        """Keep a head; blocks that are all different push each other out."""
        if len(block) <= _MAX_REMEMBERED_BYTES:
            self._heads[block] = head


class HeaderReader:
    """The decoding side of one connection."""

    def __init__(self, remembered: RememberedHeads) -> None:
        self._decoder = hpack.Decoder(MAX_HEADER_LIST_BYTES)
        self._remembered = remembered

    def limit_table(self, size_bytes: int) -> None:
        """The peer has acknowledged how large its header table may be.

        Its next block should say so too (RFC 7541, 4.2). One that does not is understood as long as it makes no use of
        more.
        """
        self._decoder.max_allowed_table_size = size_bytes
        self._decoder.header_table_size = min(size_bytes, self._decoder.header_table_size)

    def read_head(self, block: bytes) -> RequestHead:
        """The head of a request.

        Raises:
            ConnectionFault: the block cannot be decoded.
            MalformedHead: it is not a request.
        """
        if self._decoder.header_table_size:
            return parse_head(self.read(block))
        head = self._remembered.find(block)
        if head is None:
            head = parse_head(self.read(block))
            if not self._decoder.header_table_size:
                self._remembered.remember(block, head)
        return head

    def read(self, block: bytes) -> HeaderList:
        """The headers of a block. Every block has to pass here, or later ones cannot be understood.

        Raises:
            ConnectionFault: the block cannot be decoded.
        """
        try:
            return cast("HeaderList", self._decoder.decode(block, raw=True))
        except hpack.OversizedHeaderListError:
            raise ConnectionFault(ErrorCode.ENHANCE_YOUR_CALM, "a header list that is too large") from None
        except (hpack.HPACKError, IndexError, ValueError):
            # hpack 4 lets IndexError through where a block ends too soon.
            raise ConnectionFault(ErrorCode.COMPRESSION_ERROR, "a header block that cannot be decoded") from None


class UnfinishedBlock:
    """A header block that goes on in CONTINUATION frames."""

    __slots__ = ("data", "depends_on_itself", "is_end", "stream_id")

    def __init__(self, stream_id: int, fragment: bytes, flags: int, *, depends_on_itself: bool) -> None:
        self.stream_id = stream_id
        self.is_end = flags & END_STREAM != 0
        self.depends_on_itself = depends_on_itself
        self.data = bytearray(fragment)

    def add(self, fragment: bytes) -> None:
        """The next fragment.

        Raises:
            ConnectionFault: the block has become too large.
        """
        if len(self.data) + len(fragment) > MAX_BLOCK_BYTES:
            raise ConnectionFault(ErrorCode.ENHANCE_YOUR_CALM, "a header block that is too large")
        self.data += fragment


def write_headers(*headers: tuple[str, str]) -> bytes:
    """A block of literals that no table remembers and nothing compresses (RFC 7541, 6.2.2)."""
    return b"".join(b"\x00" + _string(name) + _string(value) for name, value in headers)


def _string(text: str) -> bytes:
    data = text.encode("latin-1")
    length = len(data)
    if length < 127:
        return bytes((length,)) + data
    # An integer with a prefix of seven bits (RFC 7541, 5.1).
    encoded = bytearray((127,))
    length -= 127
    while length >= 128:
        encoded.append(length & 127 | 128)
        length >>= 7
    encoded.append(length)
    return bytes(encoded) + data
