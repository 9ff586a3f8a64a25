"""What one peer may ask of us: sizes, numbers, and the floods known from HTTP/2's history.

Counts and compares; frames and streams are for `connection`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from headgate.transport.lean.frames import ConnectionFault, ErrorCode

_CONTROL_FRAMES_PER_READ: Final = 16
_CONTROL_FRAMES_AT_MOST: Final = 1024
_RAPID_SECONDS: Final = 1.0
_RAPID_RESETS: Final = 1000
_RESET_PERIOD_SECONDS: Final = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Of one connection.

    Attributes:
        max_streams: open at a time. Envoy opens one for every request it holds, and more connections beyond this.
        kept_bytes: of messages that are not complete yet, or that the peer does not take; each way.
        stream_window_bytes: how much a stream may send before we have said that we took it; a larger message gets the
            room it announces.
        connection_window_bytes: the same for all its streams together; at least 65,535.
        header_table_bytes: 0 makes equal header blocks mean the same, so that they are decoded once.
    """

    max_message_bytes: int
    max_streams: int = 20_000
    kept_bytes: int = 128 * 1024 * 1024
    stream_window_bytes: int = 256 * 1024
    connection_window_bytes: int = 16 * 1024 * 1024
    header_table_bytes: int = 0


class FloodGuard:
    """Ends a connection that makes work for nothing: ping, settings and empty-frame floods, and rapid reset."""

    __slots__ = ("_allowance", "_opened_before", "_period_started_at", "_rapid_resets")

    def __init__(self) -> None:
        self._allowance = _CONTROL_FRAMES_AT_MOST
        self._period_started_at = 0.0
        self._opened_before = 0
        self._rapid_resets = 0

    def on_read(self) -> None:
        """Bytes have come: an honest peer packs few control frames into one read."""
        if self._allowance < _CONTROL_FRAMES_AT_MOST:
            self._allowance += _CONTROL_FRAMES_PER_READ

    def on_control_frame(self) -> None:
        """A frame that carries no call forward.

        Raises:
            ConnectionFault: too many of them for the reads they came in.
        """
        self._allowance -= 1
        if self._allowance < 0:
            raise ConnectionFault(ErrorCode.ENHANCE_YOUR_CALM, "a flood of control frames")

    def on_unanswered_reset(self, opened_at: float, now: float, opened_total: int) -> None:
        """The peer gave up a call that had no answer yet (CVE-2023-44487 when done at once and all the time).

        Many clients may leave in the same moment, so a large share of all calls has to be given up young.

        Args:
            opened_total: streams this connection has opened so far.

        Raises:
            ConnectionFault: most calls of the last seconds were reset right after their start.
        """
        if now - opened_at >= _RAPID_SECONDS:
            return
        if now - self._period_started_at >= _RESET_PERIOD_SECONDS:
            self._period_started_at, self._opened_before, self._rapid_resets = now, opened_total, 0
        self._rapid_resets += 1
        if self._rapid_resets > _RAPID_RESETS and self._rapid_resets * 2 > opened_total - self._opened_before:
            raise ConnectionFault(ErrorCode.ENHANCE_YOUR_CALM, "calls are reset as soon as they are made")
