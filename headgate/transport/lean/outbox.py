"""What leaves a connection: the bytes gathered since the last write, and the peer's room for more.

Whoever writes to the socket takes everything at once; nothing here writes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from headgate.transport.lean.frames import (
    DEFAULT_FRAME_BYTES,
    DEFAULT_WINDOW_BYTES,
    HEADER,
    MAX_WINDOW_BYTES,
    RST_STREAM,
    UINT32,
    WINDOW_UPDATE,
    ConnectionFault,
    ErrorCode,
)

if TYPE_CHECKING:
    from headgate.transport.lean.stream import Stream


class Outbox:
    """One connection's outgoing side.

    Attributes:
        parts: bytes in their order, to be written in one go.
        window: how many bytes of DATA the peer takes on all streams together.
        initial_window: the same for a new stream.
        blocked: streams that have more to send than the peer takes, in the order in which they got stuck.
        kept_bytes: what those hold.
        is_congested: the socket takes no more for now.
        wake: called when there is something to write again.
    """

    __slots__ = (
        "blocked",
        "initial_window",
        "is_congested",
        "kept_bytes",
        "max_frame_bytes",
        "max_kept_bytes",
        "parts",
        "waiting",
        "wake",
        "window",
    )

    def __init__(self, max_kept_bytes: int) -> None:
        self.parts: list[bytes | memoryview] = []
        self.window = DEFAULT_WINDOW_BYTES
        self.initial_window = DEFAULT_WINDOW_BYTES
        self.max_frame_bytes = DEFAULT_FRAME_BYTES
        self.max_kept_bytes = max_kept_bytes
        self.blocked: dict[int, Stream] = {}
        self.waiting: list[Stream] = []
        self.kept_bytes = 0
        self.is_congested = False
        self.wake: Callable[[], None] = _nobody

    def frame(self, kind: int, flags: int, stream_id: int, payload: bytes | memoryview = b"") -> None:
        """Add a frame."""
        if not self.parts:
            self.wake()
        self.parts.append(HEADER.pack(len(payload) << 8 | kind, flags, stream_id))
        self.parts.append(payload)

    def grant(self, stream_id: int, increment: int) -> None:
        """Let the peer send this much more, on a stream or (0) on the connection."""
        self.frame(WINDOW_UPDATE, 0, stream_id, UINT32.pack(increment))

    def reset(self, stream_id: int, code: ErrorCode) -> None:
        """End a stream at once, both ways."""
        self.frame(RST_STREAM, 0, stream_id, UINT32.pack(code))

    def take(self) -> bytes:
        """Everything since the last time."""
        data = b"".join(self.parts)
        self.parts.clear()
        return data

    def raise_window(self, increment: int) -> None:
        """The peer takes more on the connection.

        Raises:
            ConnectionFault: more than a window can hold.
        """
        if self.window + increment > MAX_WINDOW_BYTES:
            raise ConnectionFault(ErrorCode.FLOW_CONTROL_ERROR, "the connection's window overflows")
        self.window += increment
        self.pump()

    def pump(self) -> None:
        """Send what has room now."""
        for stream in list(self.blocked.values()):
            if self.window <= 0:
                break
            stream.pump()

    def relieve(self) -> None:
        """The socket takes more again."""
        self.is_congested = False
        waiting, self.waiting = self.waiting, []
        for stream in waiting:
            stream.drained()


def _nobody() -> None:
    """Before a socket is there, what is written waits."""
