"""What one stream has sent and its peer does not take yet; goes out in pieces as windows open."""

from __future__ import annotations

from collections import deque

from headgate.transport.lean.frames import DATA
from headgate.transport.lean.outbox import Outbox


class Backlog:
    """Bytes of DATA that wait, in their order."""

    __slots__ = ("_outbox", "_pieces", "_stream_id", "kept_bytes")

    def __init__(self, stream_id: int, outbox: Outbox) -> None:
        self._stream_id = stream_id
        self._outbox = outbox
        self._pieces: deque[memoryview] = deque()
        self.kept_bytes = 0

    def put(self, data: bytes) -> None:
        """Add bytes at the end."""
        self._pieces.append(memoryview(data))
        self._count(len(data))

    def pump(self, window: int) -> int:
        """Send what the stream's window, the connection's and a frame have room for; returns how many bytes that is."""
        outbox, pieces, room = self._outbox, self._pieces, window
        while pieces:
            first = pieces[0]
            size = min(len(first), room, outbox.window, outbox.max_frame_bytes)
            if size <= 0:
                break
            outbox.frame(DATA, 0, self._stream_id, first[:size])
            outbox.window -= size
            room -= size
            if size == len(first):
                pieces.popleft()
            else:
                pieces[0] = first[size:]
        self._count(room - window)
        return window - room

    def drop(self) -> None:
        """Send nothing of it any more."""
        self._pieces.clear()
        self._count(-self.kept_bytes)

    def _count(self, change: int) -> None:
        self.kept_bytes += change
        self._outbox.kept_bytes += change
