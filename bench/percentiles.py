"""Percentiles of measured times, by nearest rank: each is a value that was really seen."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Percentiles:
    """What half, nine tenths and 99 of a hundred requests stayed within, in milliseconds."""

    p50_ms: float
    p90_ms: float
    p99_ms: float

    @classmethod
    def of_seconds(cls, seconds: Sequence[float]) -> Percentiles:
        """The percentiles of times in seconds.

        Raises:
            ValueError: there are none.
        """
        ordered = sorted(seconds)
        return cls(
            p50_ms=nearest_rank(ordered, 50) * 1000,
            p90_ms=nearest_rank(ordered, 90) * 1000,
            p99_ms=nearest_rank(ordered, 99) * 1000,
        )


def nearest_rank(ordered: Sequence[float], percent: float) -> float:
    """The smallest value that at least `percent` (0 to 100) of the ordered values do not exceed.

    Raises:
        ValueError: there are no values.
    """
    if not ordered:
        raise ValueError("no values, no percentile")
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)]
