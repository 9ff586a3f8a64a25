"""Fairness between the tenants of a tier, whose weights are equal and whose demands are not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence


def jain(shares: Sequence[float]) -> float:
    """Jain's index: 1.0 when all are equal, 1/n when one has everything (Jain, Chiu, Hawe 1984). 1.0 for nothing."""
    squares = sum(share * share for share in shares)
    return sum(shares) ** 2 / (len(shares) * squares) if squares else 1.0


def max_min_shares(demands: Mapping[str, float], total: float) -> dict[str, float]:
    """Divide `total` max-min fairly: nobody gets more than it asked for, and what is left is divided equally."""
    shares: dict[str, float] = {}
    left = total
    for position, name in enumerate(sorted(demands, key=lambda name: (demands[name], name))):
        shares[name] = min(demands[name], left / (len(demands) - position))
        left -= shares[name]
    return shares


def fairness(demands: Mapping[str, float], served: Mapping[str, float]) -> float:
    """Jain's index of what each tenant got over its max-min fair part of what all of them got together.

    1.0 when nobody got anything: then nobody got more than another.
    """
    fair = max_min_shares(demands, sum(served.values()))
    return jain([served[name] / share for name, share in fair.items() if share > 0])
