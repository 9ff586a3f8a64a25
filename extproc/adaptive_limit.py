"""A concurrency limit that finds how many requests a cluster runs at once, and follows it when that changes.

A gradient limit as in Netflix's concurrency-limits and Envoy's adaptive concurrency, with two differences. It looks at
the lower quartile of many requests, each against what its own prompt takes without congestion, because times to a
first token differ by orders of magnitude between prompts. And it looks only at requests that began after its last
step had taken hold, because answers take many seconds. Pure: `now` is passed in.
"""

from __future__ import annotations

import math

MIN_LIMIT = 2
MAX_LIMIT = 100_000
TOLERANCE = 2.0
"""Congested: the quartile takes this many times what it takes without congestion."""
_COMFORTABLE = 1.5
_WINDOW = 20
_MIN_GRADIENT = 0.5
_IN_USE = 0.8
_FUTILE_STEPS = 2
_MAX_PACE = 3
_BELIEVED_STEPS = 6
_NEAR = 0.95
_LOST = 8


class AdaptiveLimit:
    """One cluster's limit.

    Args:
        start: the first limit; doubles while there is no congestion, until there is.
    """

    def __init__(self, start: int) -> None:
        self.limit = max(MIN_LIMIT, start)
        self._counts_from = -math.inf
        self._is_shrinking = False
        self._is_starting = True
        self._peak = 0
        self._delays: list[float] = []
        self._last_cut: float | None = None
        self._futile_steps = 0
        self._growths = 0
        self._too_much = MAX_LIMIT
        self._before_cuts = self.limit

    def observe(self, delay: float, began_at: float, in_flight: int, now: float) -> float:
        """One finished request. By how much what is expected without congestion has to be raised; 1.0: not at all.

        Args:
            delay: its time to first token over what that takes without congestion; infinite when it was turned away.
            began_at: when it was admitted.
            in_flight: requests on the cluster now; in the place of this one there may be another already.
        """
        if self._is_shrinking:
            if in_flight > self.limit:
                return 1.0
            self._is_shrinking = False
            self._restart(now)
        self._peak = max(self._peak, in_flight)
        if began_at < self._counts_from:
            return 1.0
        self._delays.append(delay)
        if len(self._delays) < _WINDOW:
            return 1.0
        quartile = sorted(self._delays)[_WINDOW // 4]
        raised_by = self._shrink(quartile) if quartile > TOLERANCE else self._stay_or_grow(quartile)
        self._restart(now)
        return raised_by

    def scale(self, factor: float) -> None:
        """The cluster was made so many times as large, or small: what was too much before says nothing any more."""
        self.limit = max(MIN_LIMIT, round(self.limit * factor))
        self._too_much, self._last_cut, self._growths = MAX_LIMIT, None, 0
        self._delays.clear()

    def _shrink(self, delay: float) -> float:
        # A smaller limit that does not help shows that something else is slow: what was expected was too little.
        is_futile = self._last_cut is not None and math.isfinite(delay) and delay > 0.9 * self._last_cut
        self._futile_steps = self._futile_steps + 1 if is_futile else 0
        if self._last_cut is None:
            self._before_cuts = self.limit
        self._last_cut = delay
        if self._futile_steps >= _FUTILE_STEPS:
            self._last_cut, self._futile_steps = None, 0
            self.limit, self._too_much, self._is_starting = self._before_cuts, MAX_LIMIT, False
            return delay
        self._too_much = math.floor(_NEAR * self.limit)
        gradient = max(_MIN_GRADIENT, math.sqrt(TOLERANCE / delay))
        self.limit = max(MIN_LIMIT, min(math.floor(self.limit * gradient), self.limit - 1))
        self._is_shrinking, self._growths = True, 0
        # Cut to a fraction, as by servers that turned everybody away for a while: nothing is known any more.
        self._is_starting = self.limit * _LOST <= self._before_cuts
        return 1.0

    def _stay_or_grow(self, delay: float) -> float:
        self._last_cut, self._futile_steps = None, 0
        if delay < _COMFORTABLE and self._peak >= _IN_USE * self.limit:
            self._growths += 1
            self.limit = min(self.limit + self._growth(), MAX_LIMIT)
        else:
            self._growths = 0
        return 1.0

    def _growth(self) -> int:
        """Doubling at first; then the more, the more steps went well, but by ones where it was too much before."""
        if self._is_starting:
            return self.limit
        growth = max(1, math.isqrt(self.limit) * min(self._growths, _MAX_PACE))
        if self._growths > _BELIEVED_STEPS or self.limit + growth < self._too_much:
            return growth
        return max(1, self._too_much - self.limit - 1)

    def _restart(self, now: float) -> None:
        self._counts_from, self._peak = now, 0
        self._delays.clear()
