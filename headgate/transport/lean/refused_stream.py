"""A request that is HTTP but not gRPC: read to its end, then answered in plain HTTP."""

from __future__ import annotations

from headgate.transport.lean.frames import DATA, END_HEADERS, END_STREAM, HEADERS
from headgate.transport.lean.responses import REFUSAL_BODY, refusal_headers
from headgate.transport.lean.stream import Stream


class RefusedStream(Stream):
    """Throws away what it receives; who sends on and on is answered before the end."""

    __slots__ = ()

    def receive(self, payload: bytes, frame_bytes: int, *, is_end: bool) -> None:
        """A DATA frame.

        Raises:
            StreamFault: there is more of it than the peer had promised.
        """
        self.receive_window -= frame_bytes
        if self._uncounted is not None:
            self._count(len(payload))
        if is_end:
            self.half_close()
        elif self.receive_window < self._table.limits.stream_window_bytes >> 1:
            self._refuse()

    def half_close(self) -> None:
        """The request is complete.

        Raises:
            StreamFault: the peer had promised more.
        """
        self._check_count()
        self.is_half_closed = True
        self._refuse()

    def _refuse(self) -> None:
        if not self.is_open:
            return
        self.is_open = False
        self._trailers = b""
        self._outbox.frame(HEADERS, END_HEADERS, self.id, refusal_headers(self.head.http_status))
        self._keep(REFUSAL_BODY)

    def _send_trailers(self, block: bytes) -> None:
        self._outbox.frame(DATA, END_STREAM, self.id, block)
        self._close()
