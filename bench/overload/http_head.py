"""As much HTTP/1.1 as the benchmark's own two ends need: heads with a content-length, no more."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Head:
    """The head of a request or a response.

    Attributes:
        start: its first line, split at spaces into three at most.
        headers: lower-case name -> value.
        size: bytes of the head, the empty line included.
    """

    start: tuple[bytes, ...]
    headers: dict[bytes, bytes]
    size: int

    @property
    def method(self) -> bytes:
        """Of a request."""
        return self.start[0]

    @property
    def target(self) -> bytes:
        """Of a request."""
        return self.start[1]

    @property
    def status(self) -> int:
        """Of a response."""
        return int(self.start[1])

    @property
    def content_length(self) -> int:
        """0 when it has none."""
        return int(self.headers.get(b"content-length", b"0"))

    @property
    def is_chunked(self) -> bool:
        """Whether the body comes in chunks."""
        return self.headers.get(b"transfer-encoding") == b"chunked"


def read_head(data: bytes) -> Head | None:
    """The head that begins here; None while it is incomplete."""
    end = data.find(b"\r\n\r\n")
    if end < 0:
        return None
    start, *lines = data[:end].split(b"\r\n")
    pairs = (line.partition(b":") for line in lines)
    return Head(tuple(start.split(b" ", 2)), {name.lower(): value.strip() for name, _, value in pairs}, end + 4)
