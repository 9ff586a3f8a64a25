"""The arithmetic of leases: counts per scope, limits and reservations, and when a slot is likely to free.

Pure: `now` is passed in, nothing is awaited. Not thread-safe; whoever owns the ledger makes each call one step.
"""

from __future__ import annotations

import itertools
from collections.abc import Hashable, Mapping
from typing import TypeVar

from headgate.store import Lease, LeaseRequest, Refused, Scope, Usage, whole_share

MAX_RETRY_AFTER_SECONDS = 120.0
"""openai-python does not retry at all when told to wait longer."""
MIN_RETRY_AFTER_SECONDS = 0.01
"""Zero would be an invitation to a busy loop."""
_NEWEST_WEIGHT = 0.1
_FIRST_GUESS_SECONDS = 1.0

Key = TypeVar("Key", bound=Hashable)


class Ledger:
    """Grants leases while every scope has room and takes each back exactly once."""

    def __init__(self) -> None:
        self._ids = itertools.count(1)
        self._leases: dict[int, Lease] = {}
        self._tenants: dict[str, int] = {}
        self._tiers: dict[str, int] = {}
        self._requests = _Pool()
        self._tokens = _Pool()
        self._mean_hold_seconds: dict[str | None, float] = {}

    def __len__(self) -> int:
        return len(self._leases)

    def get(self, lease_id: int) -> Lease | None:
        """A lease that is held."""
        return self._leases.get(lease_id)

    def acquire(self, request: LeaseRequest, now: float) -> Lease | Refused:
        """Take a slot in every scope, or name the first that has none. `now` in seconds, monotonic."""
        refused = self.refusal(request)
        if refused is not None:
            return refused
        lease = Lease(next(self._ids), request, now)
        self.adopt(lease)
        return lease

    def refusal(self, request: LeaseRequest) -> Refused | None:
        """What `acquire` would say if not yes."""
        scope = self._first_full(request)
        return None if scope is None else Refused(scope, self._seconds_to_next_release(request, scope))

    def adopt(self, lease: Lease) -> None:
        """Count a lease that was granted elsewhere."""
        self._leases[lease.id] = lease
        self._count(lease.request, 1)

    def release(self, lease: Lease, now: float) -> bool:
        """Give a lease back; False when it was given back before (or never granted here)."""
        if self._leases.pop(lease.id, None) is None:
            return False
        self._count(lease.request, -1)
        cluster, held = lease.request.cluster, now - lease.granted_at
        mean = self._mean_hold_seconds.get(cluster, held)
        self._mean_hold_seconds[cluster] = mean + _NEWEST_WEIGHT * (held - mean)
        return True

    def usage(self, cluster: str) -> Usage:
        """What is in flight on a cluster."""
        return Usage(self._requests.total.get(cluster, 0), self._tokens.total.get(cluster, 0))

    def in_flight(self, scope: Scope, name: str) -> int:
        """Leases of a tenant, tier or cluster."""
        match scope:
            case Scope.TENANT:
                return self._tenants.get(name, 0)
            case Scope.TIER:
                return self._tiers.get(name, 0)
            case Scope.CLUSTER:
                return self._requests.total.get(name, 0)
            case Scope.CLUSTER_TOKENS:
                return self._tokens.total.get(name, 0)

    def _first_full(self, request: LeaseRequest) -> Scope | None:
        if request.tenant_limit is not None and self._tenants.get(request.tenant, 0) >= request.tenant_limit:
            return Scope.TENANT
        if request.cluster is None:
            return None
        if request.tier_limit is not None and self._tiers.get(request.tier, 0) >= request.tier_limit:
            return Scope.TIER
        where = (request.cluster, request.tier)
        limit, token_limit = request.cluster_limit, request.cluster_token_limit
        if limit is not None and self._requests.free(where, limit, request.reserved) < 1:
            return Scope.CLUSTER
        if token_limit is not None and self._tokens.free(where, token_limit, request.reserved) < request.tokens:
            return Scope.CLUSTER_TOKENS
        return None

    def _count(self, request: LeaseRequest, sign: int) -> None:
        _add(self._tenants, request.tenant, sign)
        if request.cluster is not None:
            _add(self._tiers, request.tier, sign)
            where = (request.cluster, request.tier)
            self._requests.add(where, sign)
            if request.tokens:
                self._tokens.add(where, sign * request.tokens)

    def _seconds_to_next_release(self, request: LeaseRequest, scope: Scope) -> float:
        """The mean time a lease is held, shared by those that hold one: the more there are, the sooner one ends."""
        name = {Scope.TENANT: request.tenant, Scope.TIER: request.tier}.get(scope, request.cluster or "")
        counted = Scope.CLUSTER if scope is Scope.CLUSTER_TOKENS else scope
        holders = max(1, self.in_flight(counted, name))
        mean = self._mean_hold_seconds.get(request.cluster, _FIRST_GUESS_SECONDS)
        return min(max(mean / holders, MIN_RETRY_AFTER_SECONDS), MAX_RETRY_AFTER_SECONDS)


class _Pool:
    """One resource of the clusters (requests or tokens): in use in all, and by tier."""

    def __init__(self) -> None:
        self.total: dict[str, int] = {}
        self._by_tier: dict[tuple[str, str], int] = {}

    def free(self, where: tuple[str, str], limit: int, reserved: Mapping[str, float]) -> int:
        """What the tier may still take: the limit less all in use, less what others reserved and do not use."""
        cluster, tier = where
        free = limit - self.total.get(cluster, 0)
        for other, share in reserved.items():
            if other != tier:
                free -= max(0, whole_share(share, limit) - self._by_tier.get((cluster, other), 0))
        return free

    def add(self, where: tuple[str, str], amount: int) -> None:
        _add(self.total, where[0], amount)
        _add(self._by_tier, where, amount)


def _add(counts: dict[Key, int], key: Key, amount: int) -> None:
    count = counts.get(key, 0) + amount
    if count:
        counts[key] = count
    else:
        # A tenant without leases takes no memory.
        del counts[key]
