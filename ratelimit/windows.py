"""Fixed-window counters in memory: how often each key was hit since its window began.

Windows are aligned to the unix epoch. Every call is one step of the event loop, so a request's charges take effect
together. Knows nothing of descriptors, and no clock: `now` (unix seconds) is passed in. Not thread-safe.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from math import inf

_LONGEST_KEY = 200
"""Longer keys are kept as digests: a client's header decides how long a key is, not how much memory it takes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Charge:
    """Hits for one counter.

    Attributes:
        hits: 0 only asks, negative hits are given back (a count never falls below 0).
        is_enforced: False for a limit that refuses nobody, so that it holds back no other charge either.
    """

    key: str
    limit: int
    window_seconds: int
    hits: int
    is_enforced: bool = True


@dataclass(frozen=True, slots=True)
class Tally:
    """What became of one charge: is it over its limit, where does the count stand, when does the window end."""

    is_over: bool
    count: int
    reset_seconds: float


@dataclass(slots=True)
class _Window:
    start: int
    end: int
    counts: dict[str, int] = field(default_factory=dict)


class FixedWindows:
    """Counts per (window length, key). What ended is freed a few entries per charge, never all at once."""

    def __init__(self) -> None:
        self._open: dict[int, _Window] = {}
        self._ended: list[dict[str, int]] = []
        self._next_end: float = inf

    def __len__(self) -> int:
        """Counters in memory, those of ended windows that are still to be freed included."""
        return sum(len(window.counts) for window in self._open.values()) + sum(map(len, self._ended))

    def charge(self, charges: Sequence[Charge], now: float, *, all_or_nothing: bool = False) -> tuple[Tally, ...]:
        """Apply all charges of a request in one step; one tally for each, in order.

        A charge is over when the count with its hits exceeds the limit; it counts all the same.
        With `all_or_nothing` no charge counts when an enforced one is over, and the tallies show what stands.
        """
        self.drop_expired(now, at_most=2 * len(charges))
        steps = [_Step(charge, self._window(charge.window_seconds, now)) for charge in charges]
        if all_or_nothing and any(step.is_over and step.charge.is_enforced for step in steps):
            for step in reversed(steps):
                step.undo()
        return tuple(step.tally(now) for step in steps)

    def drop_expired(self, now: float, *, at_most: int) -> int:
        """Free up to this many counters of ended windows; returns how many were freed."""
        if now >= self._next_end:
            self._end_windows(now)
        freed = 0
        while self._ended and freed < at_most:
            counts = self._ended[-1]
            while counts and freed < at_most:
                counts.popitem()
                freed += 1
            if not counts:
                self._ended.pop()
        return freed

    def _end_windows(self, now: float) -> None:
        for length, window in list(self._open.items()):
            if now >= window.end:
                self._ended.append(self._open.pop(length).counts)
        self._next_end = min((window.end for window in self._open.values()), default=inf)

    def _window(self, length: int, now: float) -> _Window:
        window = self._open.get(length)
        # A clock set back by less than a window's length stays in its window: a second budget would be a gift.
        if window is not None and window.start - length <= now:
            return window
        start = int(now // length) * length
        if window is not None:
            self._ended.append(window.counts)
        window = self._open[length] = _Window(start, start + length)
        self._next_end = min(window.end for window in self._open.values())
        return window


class _Step:
    """One charge as applied, and the way back."""

    __slots__ = ("_after", "_before", "_counts", "_end", "_key", "_undone", "charge", "is_over")

    def __init__(self, charge: Charge, window: _Window) -> None:
        self.charge = charge
        self._counts = window.counts
        self._end = window.end
        self._key = _bounded(charge.key)
        self._before = window.counts.get(self._key, 0)
        self._after = max(0, self._before + charge.hits)
        self.is_over = charge.hits >= 0 and self._after > charge.limit
        self._undone = False
        self._set(self._after)

    def undo(self) -> None:
        self._undone = True
        self._set(self._before)

    def tally(self, now: float) -> Tally:
        count = self._counts.get(self._key, 0) if self._undone else self._after
        return Tally(self.is_over, count, self._end - now)

    def _set(self, count: int) -> None:
        if count:
            self._counts[self._key] = count
        else:
            self._counts.pop(self._key, None)


def _bounded(key: str) -> str:
    if len(key) <= _LONGEST_KEY:
        return key
    return blake2b(key.encode("utf-8", "surrogatepass"), digest_size=24).hexdigest()
