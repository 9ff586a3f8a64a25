"""Fixed and sliding windows over one generation's counts: one charge as a step that can be taken back.

Windows are aligned to the unix epoch. A sliding window weighs the previous window's count by the part of it that
still lies within one window's length. `now` is in microseconds; the same arithmetic stands in `charge.lua`.
"""

from __future__ import annotations

from ratelimit.charges import COUNT_MAX, Charge
from ratelimit.generations import Generations

MICROSECONDS = 1_000_000


class FixedStep:
    """One charge of a fixed window."""

    __slots__ = ("_before", "_counts", "_end", "_is_past", "_name", "_now", "attempted", "is_over")

    def __init__(self, charge: Charge, windows: Generations[int], now: int) -> None:
        self._counts, self._end, self._now = windows.current, windows.end, now
        pinned = charge.window_start
        self._is_past = pinned is not None and pinned * MICROSECONDS != windows.end - windows.period
        self._name = windows.name(charge.key)
        self._before = self.count()
        self.attempted = min(max(0, self._before + charge.hits), COUNT_MAX)
        self.is_over = charge.hits >= 0 and self.attempted > charge.limit

    def apply(self, hits: int) -> None:
        """Count the hits; a count stays between 0 and `COUNT_MAX`."""
        if self._is_past:
            return
        _put(self._counts, self._name, self.count() + hits)

    def undo(self) -> None:
        """Put back what stood before this step."""
        _put(self._counts, self._name, self._before)

    def count(self) -> int:
        """Where the count stands."""
        return self._counts.get(self._name, 0)

    def reset_seconds(self) -> float:
        """Until the window ends."""
        return (self._end - self._now) / MICROSECONDS


class SlidingStep:
    """One charge of a sliding window."""

    __slots__ = ("_before", "_charge", "_counts", "_left", "_name", "_period", "_previous", "attempted", "is_over")

    def __init__(self, charge: Charge, windows: Generations[int], now: int) -> None:
        self._charge, self._counts, self._period = charge, windows.current, windows.period
        self._name = windows.name(charge.key)
        self._previous = windows.previous.get(self._name, 0)
        self._left = min(windows.end - now, windows.period)
        self._before = self._counts.get(self._name, 0)
        self.attempted = min(max(0, self.count() + charge.hits), COUNT_MAX)
        self.is_over = charge.hits >= 0 and self.attempted > charge.limit

    def apply(self, hits: int) -> None:
        """Count the hits in the window that runs."""
        _put(self._counts, self._name, self._counts.get(self._name, 0) + hits)

    def undo(self) -> None:
        """Put back what stood before this step."""
        _put(self._counts, self._name, self._before)

    def count(self) -> int:
        """The hits within one window's length up to now, rounded up."""
        return self._counts.get(self._name, 0) + -(-self._previous * self._left // self._period)

    def reset_seconds(self) -> float:
        """Until the window ends or, when over, until the same hits pass if nothing else comes."""
        wait = self._wait() if self.is_over else self._left
        return max(wait, 1) / MICROSECONDS

    def _wait(self) -> int:
        current, room = self._counts.get(self._name, 0), self._charge.limit - max(1, self._charge.hits)
        if current <= room:
            # The previous window's part has to shrink to what is left of the room.
            return self._left - self._period * (room - current) // max(1, self._previous)
        if room < 0:
            return self._left + self._period
        return self._left + self._period - self._period * room // max(1, current)


def _put(counts: dict[str, int], name: str, count: int) -> None:
    if count > 0:
        counts[name] = min(count, COUNT_MAX)
    else:
        counts.pop(name, None)
