"""What is in flight in all, as far as this sidecar knows: its own leases exactly, the others' from the last answer."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from headgate.store import LeaseRequest, Scope
from headgate.store.ledger import Ledger

_FIELDS = {Scope.TENANT: "t", Scope.TIER: "r", Scope.CLUSTER: "c", Scope.CLUSTER_TOKENS: "k"}
_POLICY_FIELDS = ("r", "c", "k")
"""Of tiers and clusters: as many as the policy names, and shown by gauges."""
_FRESH_SECONDS = 0.5


class View:
    """In-flight numbers.

    Args:
        own: this sidecar's leases.
        stale_seconds: what was heard of others longer ago counts for nothing.
    """

    def __init__(self, own: Ledger, stale_seconds: float) -> None:
        self._own = own
        self._stale_seconds = stale_seconds
        self._told: Counter[str] = Counter()
        self._others: dict[str, tuple[int, float]] = {}
        self._wanted: set[str] = set()

    def in_flight(self, scope: Scope, name: str, now: float) -> int:
        """Leases (or tokens) of a tenant, tier or cluster."""
        return self._own.in_flight(scope, name) + self.elsewhere(scope, name, now)

    def elsewhere(self, scope: Scope, name: str, now: float) -> int:
        """Those of other sidecars; an old number is asked for anew, and one older still counts for nothing."""
        field = _FIELDS[scope] + name
        others, known_at = self._others.get(field, (0, float("-inf")))
        if now - known_at > _FRESH_SECONDS:
            self._wanted.add(field)
        return 0 if now - known_at > self._stale_seconds else others

    @property
    def is_wanting(self) -> bool:
        """Whether somebody asked for a number that is not fresh."""
        return bool(self._wanted)

    def take_wanted(self, *, all_of_policy: bool) -> list[str]:
        """The fields to ask Redis for."""
        wanted = self._wanted
        self._wanted = set()
        if all_of_policy:
            wanted.update(field for field in self._others if field[0] in _POLICY_FIELDS)
        return list(wanted)

    def told(self, request: LeaseRequest, sign: int) -> None:
        """Redis counts a lease among this sidecar's from now on, or no longer does."""
        self._tell("t" + request.tenant, sign)
        if request.cluster is not None:
            self._tell("r" + request.tier, sign)
            self._tell("c" + request.cluster, sign)
            self._tell("k" + request.cluster, sign * request.tokens)

    def learn(self, counts: Mapping[str, int], now: float) -> None:
        """Take over what Redis counts."""
        for field, count in counts.items():
            if field[0] in "trck":
                self._others[field] = (max(0, count - self._told[field]), now)

    def forget_stale(self, now: float) -> None:
        """Tenants not heard of for long take no memory."""
        self._others = {
            field: known
            for field, known in self._others.items()
            if field[0] in _POLICY_FIELDS or now - known[1] <= self._stale_seconds
        }

    def _tell(self, field: str, amount: int) -> None:
        self._told[field] += amount
        if self._told[field] == 0:
            del self._told[field]
