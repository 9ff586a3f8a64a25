"""One figure measured several times: its median, and how far the repetitions lie apart."""

from __future__ import annotations

import statistics
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Spread:
    """The median of all repetitions, the lowest and the highest."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Iterable[float]) -> Spread:
        """The spread of some repetitions.

        Raises:
            statistics.StatisticsError: there are none.
        """
        seen = list(values)
        return cls(statistics.median(seen), min(seen), max(seen))

    def text(self, digits: int) -> str:
        """`median (low .. high)`, with this many digits after the point."""
        return f"{self.median:.{digits}f} ({self.low:.{digits}f} .. {self.high:.{digits}f})"
