"""The store of a sidecar on its own: a ledger in this process, one loop step per question."""

from __future__ import annotations

from collections.abc import Callable

from headgate.store import Lease, LeaseRequest, Line, Scope, TakeOutcome, Usage
from headgate.store.ledger import Ledger

Clock = Callable[[], float]
"""Seconds, monotonic."""


class MemoryStore:
    """Leases of this process only; all are gone with it."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._ledger = Ledger()
        self._listeners: list[Callable[[Lease], None]] = []

    def acquire(self, request: LeaseRequest, answer: TakeOutcome) -> None:
        """Take a slot in every scope the request names, or in none; answers before it returns."""
        answer(self._ledger.acquire(request, self._clock()))

    def release(self, lease: Lease) -> None:
        """Give the slots back. Releasing a lease a second time changes nothing."""
        if self._ledger.release(lease, self._clock()):
            for listener in self._listeners:
                listener(lease)

    def usage(self, cluster: str) -> Usage:
        """What is in flight on a cluster."""
        return self._ledger.usage(cluster)

    def elsewhere(self, cluster: str) -> int:
        """Nobody else runs anything."""
        del cluster
        return 0

    def in_flight(self, scope: Scope, name: str) -> int:
        """Leases of a tenant, tier or cluster."""
        return self._ledger.in_flight(scope, name)

    def on_release(self, listener: Callable[[Lease], None]) -> None:
        """Call `listener` after every release."""
        self._listeners.append(listener)

    def serve_line(self, line: Line) -> None:
        """Nobody waits elsewhere."""

    def line_changed(self, cluster: str) -> None:
        """Nobody else wants to know."""
