"""The streams of one connection: those that are open, and what is still known about those that were."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from headgate.transport.lean.limits import Limits

if TYPE_CHECKING:
    from headgate.transport.lean.stream import Stream

_RESETS_KNOWN: Final = 4096
_GAPS_KNOWN: Final = 32


class StreamTable:
    """Which stream is in which state (RFC 9113, 5.1), without a record of every stream that ever was.

    Attributes:
        open: by number, in the order of their start.
        last_id: the highest number the peer has used.
        opened_total: how many streams there have been.
        kept_bytes: incomplete messages held by all of them.
    """

    __slots__ = ("_gaps", "_resets", "kept_bytes", "last_id", "limits", "open", "opened_total")

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.open: dict[int, Stream] = {}
        self.last_id = -1
        self.opened_total = 0
        self.kept_bytes = 0
        self._gaps: list[range] = []
        self._resets: dict[int, None] = {}

    def note_opened(self, stream_id: int) -> None:
        """The peer starts a stream; all lower numbers it skipped are used up with it."""
        if stream_id != self.last_id + 2:
            self._gaps = [*self._gaps[1 - _GAPS_KNOWN :], range(self.last_id + 2, stream_id, 2)]
        self.last_id = stream_id
        self.opened_total += 1

    def note_reset(self, stream_id: int) -> None:
        """We ended this stream early: what the peer sent before it knew is no fault of its own."""
        self._resets[stream_id] = None
        if len(self._resets) > _RESETS_KNOWN:
            del self._resets[next(iter(self._resets))]

    def is_idle(self, stream_id: int) -> bool:
        """Whether the stream has never been opened."""
        return stream_id > self.last_id or not stream_id & 1

    def was_skipped(self, stream_id: int) -> bool:
        """Whether the peer has passed this number over."""
        return any(stream_id in gap for gap in self._gaps)

    def was_reset_by_us(self, stream_id: int) -> bool:
        """Whether late frames for this stream are to be expected."""
        return stream_id in self._resets
