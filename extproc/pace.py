"""How fast a line moves: tokens served while somebody waited, over the seconds somebody did.

Both fade, so that the pace is that of late. Knows no clock and not who waits.
"""

from __future__ import annotations

import math

_MEMORY_WAITS = 2.0
_MEMORY_SECONDS = (2.0, 120.0)
_KNOWN_AFTER_SECONDS = 30.0


class Pace:
    """One line's.

    `max_wait_seconds`, the longest anybody of the line waits, is the horizon: the pace remembers twice that, and
    says nothing before the line has been watched for as long (30 s at most).
    """

    def __init__(self) -> None:
        self._max_wait_seconds = 1.0
        self._tokens = 0.0
        self._seconds = 0.0
        self._watched_since: float | None = None

    def watch(self, now: float, *, is_contended: bool, max_wait_seconds: float | None = None) -> None:
        """Account for the time up to now, and say whether somebody waits for room from now on."""
        if max_wait_seconds is not None:
            self._max_wait_seconds = max_wait_seconds
        if self._watched_since is not None and now > self._watched_since:
            low, high = _MEMORY_SECONDS
            memory_seconds = min(max(_MEMORY_WAITS * self._max_wait_seconds, low), high)
            faded = math.exp((self._watched_since - now) / memory_seconds)
            self._tokens *= faded
            self._seconds = self._seconds * faded + memory_seconds * (1.0 - faded)
        self._watched_since = now if is_contended else None

    def served(self, tokens: int) -> None:
        """Somebody's turn came; after `watch`."""
        self._tokens += tokens

    def seconds_for(self, tokens: float, next_tokens: float) -> float | None:
        """How long the line takes to serve so much; None while the pace is not known.

        Taken for a little faster than seen, as if somebody (`next_tokens`) were served this very moment: a line nobody
        was served from has not stopped for ever.
        """
        if self._seconds < min(self._max_wait_seconds, _KNOWN_AFTER_SECONDS):
            return None
        return tokens * self._seconds / (self._tokens + next_tokens)
