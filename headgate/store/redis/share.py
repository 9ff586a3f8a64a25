"""A sidecar's part of every limit, for the time when nobody counts for all."""

from __future__ import annotations

from headgate.store import LeaseRequest


def share_of(request: LeaseRequest, sidecars: int) -> LeaseRequest:
    """The question with this sidecar's part of each limit: rounded down, but at least 1 of what is not 0."""
    return LeaseRequest(
        tenant=request.tenant,
        tier=request.tier,
        cluster=request.cluster,
        tokens=request.tokens,
        tenant_limit=_part(request.tenant_limit, sidecars),
        tier_limit=_part(request.tier_limit, sidecars),
        cluster_limit=_part(request.cluster_limit, sidecars),
        cluster_token_limit=_part(request.cluster_token_limit, sidecars),
        reserved=request.reserved,
    )


def _part(limit: int | None, sidecars: int) -> int | None:
    if not limit:
        return limit
    return max(1, limit // max(1, sidecars))
