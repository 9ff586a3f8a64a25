"""The limits a waiting request is held to: those in force when it is asked for, not those of when it came.

Its route, its tier and what it costs stay what they were. Knows no queue and no store.
"""

from __future__ import annotations

from collections.abc import Callable

from msgspec.structs import replace

from extproc.admission import tenant_concurrency
from extproc.identity import Identity
from headgate.policy.model import Cluster, Policy, Tenant
from headgate.store import LeaseRequest


class TermsInForce:
    """Brings questions up to date.

    Args:
        policy: yields the one in force.
        request_limit: of a cluster, as policy or experience has it now.
    """

    def __init__(self, policy: Callable[[], Policy], request_limit: Callable[[Cluster], int | None]) -> None:
        self._policy = policy
        self._request_limit = request_limit

    def as_of_now(self, request: LeaseRequest) -> LeaseRequest:
        """The same question with the limits of now; one whose tier or cluster is gone from the policy keeps its own."""
        policy = self._policy()
        tier, cluster = policy.tiers.get(request.tier), policy.clusters.get(request.cluster or "")
        if tier is None or cluster is None:
            return request
        tenant = policy.tenants.get(request.tenant) or Tenant(name=request.tenant, tier=tier.name)
        return replace(
            request,
            tenant_limit=tenant_concurrency(Identity(tenant, tier)),
            tier_limit=tier.tier_concurrency,
            cluster_limit=self._request_limit(cluster),
            cluster_token_limit=cluster.capacity.tokens,
            reserved=policy.reservations,
        )
