"""A circuit breaker: after some failures in a row nobody is asked for a while, then one call finds out.

Holds no clock: `now` (seconds, any origin) is passed in.
"""

from __future__ import annotations

_FAILURES_TO_OPEN = 3
_FIRST_PAUSE_SECONDS = 0.5
_LONGEST_PAUSE_SECONDS = 5.0


class Breaker:
    """Closed (calls go through), open (they do not), or trying (one call at a time goes through)."""

    def __init__(self) -> None:
        self._failures = 0
        self._pause = 0.0
        self._retry_at = 0.0

    @property
    def is_closed(self) -> bool:
        """Whether the last answers were good enough."""
        return self._failures < _FAILURES_TO_OPEN

    def admits(self, now: float) -> bool:
        """Whether to make this call. While open, one call per pause is admitted."""
        if self.is_closed:
            return True
        if now < self._retry_at:
            return False
        self._retry_at = now + self._pause
        return True

    def succeeded(self) -> None:
        """A call was answered."""
        self._failures = 0
        self._pause = 0.0

    def failed(self, now: float) -> None:
        """A call was not."""
        self._failures += 1
        if not self.is_closed:
            self._pause = min(max(_FIRST_PAUSE_SECONDS, 2 * self._pause), _LONGEST_PAUSE_SECONDS)
            self._retry_at = now + self._pause
