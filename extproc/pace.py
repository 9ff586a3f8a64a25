"""How fast a tier's line for one cluster moves: tokens handed to it over the seconds in which somebody waited there.

While nobody of the tier waits, what lesser tiers are handed counts as well, for it would have been the tier's; so the
pace is known before the line is long. Older experience fades. Knows no clock and not who waits.
"""

from __future__ import annotations

import math

_HORIZON_SECONDS = (1.0, 60.0)
_MEMORY_HORIZONS = 2.0
_FORGOTTEN_HORIZONS = 0.125
"""Once nobody has had to wait for so long, what was handed out before says nothing any more."""
_KNOWN_AFTER_GRANTS = 10
_TAKEN_OFF = 0.1
"""Of all the cluster hands out: better tiers may ask for so much more. That matters little to a tier that gets most of
it, and much to one that lives on what others leave."""
_TAKEN_OFF_AT_FIRST = 0.3
"""Likewise, when the line has only just begun to be watched."""


class Pace:
    """One line's.

    The longest anybody of the line waits (1 s at least, 60 s at most) is its horizon: the pace remembers twice that,
    and is surer of itself when it has seen as much. It says nothing before the cluster has handed out a few slots or
    the line has been watched that long, and nothing any more when nobody has had to wait for a while.
    """

    def __init__(self) -> None:
        self.priority = 0
        self._horizon_seconds = _HORIZON_SECONDS[0]
        self._own_tokens = 0.0
        self._all_tokens = 0.0
        self._grants = 0.0
        self._seconds = 0.0
        self._seen_at = -math.inf
        self._is_contended = False
        self._free_since = -math.inf

    def look_ahead(self, max_wait_seconds: float) -> None:
        """Say how long anybody of the line waits at most."""
        low, high = _HORIZON_SECONDS
        self._horizon_seconds = min(max(max_wait_seconds, low), high)

    def watch(self, now: float, *, is_contended: bool) -> None:
        """Account for the time up to now, and say whether somebody waits for room from now on."""
        self._fade(now)
        if self._is_contended and not is_contended:
            self._free_since = now
        self._is_contended = is_contended

    def served(self, tokens: int, now: float, *, is_own: bool) -> None:
        """Somebody's turn came; it counts if somebody has waited for room until now.

        Args:
            is_own: one of the tier, or one of a lesser tier while nobody of this one waited.
        """
        self._fade(now)
        if self._is_contended:
            self._grants += 1.0
            self._all_tokens += tokens
            self._own_tokens += tokens * is_own

    def seconds_for(self, tokens: float, next_tokens: float) -> float | None:
        """How long the line takes to serve so much, rather more than less; None while the pace is not known.

        It is never taken for slower than if somebody (`next_tokens`) were served this very moment: a line nobody was
        served from has not stopped for ever.
        """
        seen = min(1.0, self._seconds / self._horizon_seconds)
        if self._grants < _KNOWN_AFTER_GRANTS and seen < 1.0:
            return None
        taken_off = seen * _TAKEN_OFF + (1.0 - seen) * _TAKEN_OFF_AT_FIRST
        sure_tokens = max(0.0, self._own_tokens - taken_off * self._all_tokens)
        return tokens * self._seconds / (sure_tokens + next_tokens)

    def _fade(self, now: float) -> None:
        if now <= self._seen_at:
            return
        memory_seconds = _MEMORY_HORIZONS * self._horizon_seconds
        left = math.exp((self._seen_at - now) / memory_seconds)
        if not self._is_contended and now - self._free_since > _FORGOTTEN_HORIZONS * self._horizon_seconds:
            left = 0.0
        self._own_tokens *= left
        self._all_tokens *= left
        self._grants *= left
        self._seconds *= left
        if self._is_contended:
            self._seconds += memory_seconds * (1.0 - left)
        self._seen_at = now
