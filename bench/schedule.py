"""When the requests of an open loop are due, whatever becomes of the earlier ones."""

from __future__ import annotations

import random


def poisson_arrivals(rate_per_second: float, seconds: float, seed: int) -> list[float]:
    """Moments in [0, seconds), in order, as independent clients produce them: with exponential gaps.

    The same arguments give the same moments, so that two systems can be asked the very same way.
    """
    gaps = random.Random(seed)
    arrivals: list[float] = []
    moment = gaps.expovariate(rate_per_second)
    while moment < seconds:
        arrivals.append(moment)
        moment += gaps.expovariate(rate_per_second)
    return arrivals
