"""The arithmetic of leases: counts per scope, limits and reservations, and when a slot is likely to free.

Pure: `now` is passed in, nothing is awaited. Not thread-safe; whoever owns the ledger makes each call one step.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Callable
from operator import attrgetter

from headgate.store import Lease, LeaseRequest, Refused, Scope, Usage, whole_share

MAX_RETRY_AFTER_SECONDS = 120.0
"""openai-python does not retry at all when told to wait longer."""
MIN_RETRY_AFTER_SECONDS = 0.01
"""Zero would be an invitation to a busy loop."""
_NEWEST_WEIGHT = 0.1
_FIRST_GUESS_SECONDS = 1.0


class Ledger:
    """Grants leases while every scope has room and takes each back exactly once."""

    def __init__(self) -> None:
        self._ids = itertools.count(1)
        self._leases: dict[int, Lease] = {}
        self._tenants: dict[str, int] = {}
        self._tiers: defaultdict[str, _Use] = defaultdict(_Use)
        self._clusters: defaultdict[str, _Use] = defaultdict(_Use)
        self._by_tier: defaultdict[tuple[str, str], _Use] = defaultdict(_Use)
        self._places: dict[tuple[str, str], tuple[_Use, _Use, _Use]] = {}
        self._mean_hold_seconds: dict[str | None, float] = {}

    def __len__(self) -> int:
        return len(self._leases)

    def get(self, lease_id: int) -> Lease | None:
        """A lease that is held."""
        return self._leases.get(lease_id)

    def acquire(self, request: LeaseRequest, now: float) -> Lease | Refused:
        """Take a slot in every scope, or name the first that has none. `now` in seconds, monotonic."""
        scope = self._first_full(request)
        if scope is not None:
            return self._refused(request, scope)
        lease = Lease(next(self._ids), request, now)
        self.adopt(lease)
        return lease

    def refusal(self, request: LeaseRequest) -> Refused | None:
        """What `acquire` would say if not yes."""
        scope = self._first_full(request)
        return None if scope is None else self._refused(request, scope)

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
        use = self._clusters.get(cluster, _NOTHING)
        return Usage(use.requests, use.tokens)

    def in_flight(self, scope: Scope, name: str) -> int:
        """Leases of a tenant, tier or cluster."""
        match scope:
            case Scope.TENANT:
                return self._tenants.get(name, 0)
            case Scope.TIER:
                return self._tiers.get(name, _NOTHING).requests
            case Scope.CLUSTER:
                return self._clusters.get(name, _NOTHING).requests
            case Scope.CLUSTER_TOKENS:
                return self._clusters.get(name, _NOTHING).tokens

    def _first_full(self, request: LeaseRequest) -> Scope | None:
        limit = request.tenant_limit
        if limit is not None and self._tenants.get(request.tenant, 0) >= limit:
            return Scope.TENANT
        if request.cluster is None:
            return None
        tier, cluster, _ = self._place(request.cluster, request.tier)
        limit = request.tier_limit
        if limit is not None and tier.requests >= limit:
            return Scope.TIER
        limit = request.cluster_limit
        if limit is not None and limit - cluster.requests - self._kept(request, limit, _requests) < 1:
            return Scope.CLUSTER
        limit = request.cluster_token_limit
        if limit is not None and limit - cluster.tokens - self._kept(request, limit, _tokens) < request.tokens:
            return Scope.CLUSTER_TOKENS
        return None

    def _kept(self, request: LeaseRequest, limit: int, used: Callable[[_Use], int]) -> int:
        """What other tiers have reserved of the cluster's limit, and do not use."""
        kept = 0
        for tier, share in request.reserved.items():
            if tier != request.tier:
                use = self._by_tier.get((request.cluster or "", tier), _NOTHING)
                kept += max(0, whole_share(share, limit) - used(use))
        return kept

    def _place(self, cluster: str, tier: str) -> tuple[_Use, _Use, _Use]:
        """What the tier, the cluster, and the tier on the cluster use; kept, as there are only those of the policy."""
        where = (cluster, tier)
        place = self._places.get(where)
        if place is None:
            place = self._places[where] = (self._tiers[tier], self._clusters[cluster], self._by_tier[where])
        return place

    def _count(self, request: LeaseRequest, sign: int) -> None:
        leases = self._tenants.get(request.tenant, 0) + sign
        if leases:
            self._tenants[request.tenant] = leases
        else:
            # A tenant without leases takes no memory: there may be any number of them.
            del self._tenants[request.tenant]
        if request.cluster is not None:
            tier, cluster, share = self._place(request.cluster, request.tier)
            tokens = sign * request.tokens
            tier.requests += sign
            cluster.requests += sign
            share.requests += sign
            cluster.tokens += tokens
            share.tokens += tokens

    def _refused(self, request: LeaseRequest, scope: Scope) -> Refused:
        """To be asked again after the mean time a lease is held, shared by its holders: of many, one ends soon."""
        name = {Scope.TENANT: request.tenant, Scope.TIER: request.tier}.get(scope, request.cluster or "")
        counted = Scope.CLUSTER if scope is Scope.CLUSTER_TOKENS else scope
        holders = max(1, self.in_flight(counted, name))
        mean = self._mean_hold_seconds.get(request.cluster, _FIRST_GUESS_SECONDS)
        return Refused(scope, min(max(mean / holders, MIN_RETRY_AFTER_SECONDS), MAX_RETRY_AFTER_SECONDS))


class _Use:
    """What somebody has in use."""

    __slots__ = ("requests", "tokens")

    def __init__(self) -> None:
        self.requests = 0
        self.tokens = 0


_NOTHING = _Use()
_requests, _tokens = attrgetter("requests"), attrgetter("tokens")
