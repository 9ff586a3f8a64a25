"""Who waits for a slot, and in what order they are asked again: by tier priority, then first come first served.

Pure bookkeeping: nothing here waits or knows a clock. Depth is bounded per cluster and tier.
"""

from __future__ import annotations

import itertools
from collections import Counter, defaultdict
from collections.abc import Iterator

from headgate.store import LeaseRequest


class Waiter:
    """One waiting request."""

    __slots__ = ("priority", "request", "ticket")

    def __init__(self, ticket: int, request: LeaseRequest, priority: int) -> None:
        self.ticket = ticket
        self.request = request
        self.priority = priority


class WaitingQueue:
    """The waiters of all clusters."""

    def __init__(self) -> None:
        self._tickets = itertools.count()
        self._by_priority: defaultdict[int, dict[int, Waiter]] = defaultdict(dict)
        self._depth: Counter[tuple[str, str]] = Counter()
        self._cluster_depth: Counter[str] = Counter()

    def join(self, request: LeaseRequest, priority: int, max_depth: int) -> Waiter | None:
        """Stand at the end of the tier's line for the cluster; None when that is `max_depth` long already."""
        cluster = request.cluster or ""
        if self._depth[(cluster, request.tier)] >= max_depth:
            return None
        waiter = Waiter(next(self._tickets), request, priority)
        self._by_priority[priority][waiter.ticket] = waiter
        self._depth[(cluster, request.tier)] += 1
        self._cluster_depth[cluster] += 1
        return waiter

    def leave(self, waiter: Waiter) -> None:
        """Leave the line, served or not. Leaving twice changes nothing."""
        if self._by_priority[waiter.priority].pop(waiter.ticket, None) is not None:
            cluster = waiter.request.cluster or ""
            self._depth[(cluster, waiter.request.tier)] -= 1
            self._cluster_depth[cluster] -= 1

    def in_order(self) -> Iterator[Waiter]:
        """All waiters, the next to be served first; safe against joining and leaving meanwhile."""
        for priority in sorted(self._by_priority):
            yield from list(self._by_priority[priority].values())

    def depth(self, cluster: str) -> int:
        """How many wait for a cluster."""
        return self._cluster_depth[cluster]

    def depths(self) -> dict[tuple[str, str], int]:
        """How many wait, by (cluster, tier)."""
        return {where: depth for where, depth in self._depth.items() if depth}
