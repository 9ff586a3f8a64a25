"""Token buckets: one charge as a step that can be taken back.

`now` is in microseconds of unix time; the same arithmetic stands in `charge.lua`.
"""

from __future__ import annotations

import math

from ratelimit.charges import COUNT_MAX, Charge
from ratelimit.generations import Generations
from ratelimit.windows import MICROSECONDS

_ROUNDING = 1e-6
"""Of a hit: what floating point may add to a whole number of them."""


class BucketStep:
    """One charge of a token bucket, as GCRA keeps it: one moment per key, at which the bucket is full again."""

    __slots__ = ("_before", "_capacity", "_charge", "_interval", "_name", "_now", "_times", "attempted", "is_over")

    def __init__(self, charge: Charge, buckets: Generations[float], now: int) -> None:
        self._charge, self._now, self._times = charge, now, buckets
        self._name = buckets.name(charge.key)
        self._capacity = charge.capacity
        self._interval = charge.window_seconds * MICROSECONDS / charge.limit if charge.limit else math.inf
        self._before = self._full_at()
        self.attempted = min(max(0, self.count() + charge.hits), COUNT_MAX)
        self.is_over = charge.hits >= 0 and self.attempted > self._capacity

    def apply(self, hits: int) -> None:
        """Take the hits out of the bucket; what is given back never overfills it."""
        if hits and self._charge.limit:
            self._put(max(float(self._now), self._full_at() + hits * self._interval))

    def undo(self) -> None:
        """Put back what stood before this step."""
        self._put(self._before)

    def count(self) -> int:
        """How much of the bucket is taken, rounded up."""
        if not self._charge.limit:
            return 0
        return math.ceil((self._full_at() - self._now) / self._interval - _ROUNDING)

    def reset_seconds(self) -> float:
        """Until the bucket is full or, when over, until the same hits pass if nothing else comes."""
        if not self._charge.limit:
            return float(self._charge.window_seconds)
        missing = max(1, self._charge.hits) - self._capacity if self.is_over else 0
        return max(0.0, self._full_at() - self._now + missing * self._interval) / MICROSECONDS

    def _full_at(self) -> float:
        full_at = self._times.current.get(self._name) or self._times.previous.get(self._name, 0.0)
        return max(float(self._now), full_at)

    def _put(self, full_at: float) -> None:
        self._times.previous.pop(self._name, None)
        if full_at > self._now:
            self._times.current[self._name] = full_at
        else:
            self._times.current.pop(self._name, None)
