"""The limits a waiting request is held to: those in force when it is asked for, not those of when it came.

Its route, its tier and what it costs stay what they were. Knows no queue and no store.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from msgspec.structs import replace

from headgate.policy.model import Cluster, Policy
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
        tenant = policy.tenants.get(request.tenant)
        own_limit = None if tenant is None else tenant.limits.concurrency
        return replace(
            request,
            tenant_limit=tier.tenant_concurrency if own_limit is None else own_limit,
            tier_limit=tier.tier_concurrency,
            cluster_limit=self._request_limit(cluster),
            cluster_token_limit=cluster.capacity.tokens,
            reserved=_reserved(policy),
        )


def _reserved(policy: Policy) -> Mapping[str, float]:
    return {name: tier.reserved for name, tier in policy.tiers.items() if tier.reserved}
