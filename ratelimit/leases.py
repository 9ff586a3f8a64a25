"""Concurrency: who holds a lease, and one charge as a step that can be taken back.

A lease is kept under its request's id, so that taking it twice takes one and releasing one that was never granted
changes nothing. One that is never released ends by itself. `now` is in microseconds of unix time.
"""

from __future__ import annotations

from ratelimit.charges import Charge
from ratelimit.generations import Generations
from ratelimit.windows import MICROSECONDS

Held = dict[str, int]
"""Lease id -> the moment it ends. All leases of a key last equally long, so the oldest comes first."""


class LeaseStep:
    """One charge of a concurrency limit: any positive number of hits takes one lease, a negative one releases it."""

    __slots__ = ("_before", "_charge", "_held", "_name", "_now", "_table", "attempted", "is_over")

    def __init__(self, charge: Charge, table: Generations[Held], now: int) -> None:
        self._charge, self._table, self._now = charge, table, now
        self._name = table.name(charge.key)
        self._held = self._find()
        self._before = self._held.get(charge.lease_id)
        self.attempted = len(self._held) + (1 if charge.hits > 0 and self._before is None else 0)
        self.is_over = charge.hits >= 0 and self._before is None and self.attempted > charge.limit

    def apply(self, hits: int) -> None:
        """Take or release the lease; one that is held already keeps its end."""
        lease = self._charge.lease_id
        if hits < 0:
            self._held.pop(lease, None)
        elif hits and lease not in self._held:
            self._held[lease] = self._now + self._charge.window_seconds * MICROSECONDS
        self._keep()

    def undo(self) -> None:
        """Put back what stood before this step."""
        if self._before is None:
            self._held.pop(self._charge.lease_id, None)
        else:
            self._held[self._charge.lease_id] = self._before
        self._keep()

    def count(self) -> int:
        """How many leases are held."""
        return len(self._held)

    def reset_seconds(self) -> None:
        """Nobody knows when a request ends."""

    def _find(self) -> Held:
        held = self._table.current.get(self._name) or self._table.previous.get(self._name) or {}
        while held:
            lease = next(iter(held))
            if held[lease] > self._now:
                break
            del held[lease]
        return held

    def _keep(self) -> None:
        # A key is forgotten a generation after its newest lease began, when that lease has ended as well.
        self._table.previous.pop(self._name, None)
        if self._held:
            self._table.current[self._name] = self._held
        else:
            self._table.current.pop(self._name, None)
