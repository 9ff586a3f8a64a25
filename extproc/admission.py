"""Whether a request runs now: the question put to the store, and the steps left when the answer is no."""

from __future__ import annotations

from dataclasses import dataclass

from extproc.identity import Identity
from extproc.routing import Destination
from headgate.policy.model import Policy, Queue, Rung
from headgate.store import LeaseRequest, Scope, whole_share

_RELIEVED_BY_DEGRADING = (Scope.CLUSTER, Scope.CLUSTER_TOKENS)


def tenant_concurrency(identity: Identity) -> int | None:
    """The tenant's own limit, or else what its tier gives each tenant."""
    own = identity.tenant.limits.concurrency
    return own if own is not None else identity.tier.tenant_concurrency


def question(policy: Policy, identity: Identity, destination: Destination) -> LeaseRequest:
    """Everything the store needs to say yes or no in one step."""
    capacity = destination.cluster.capacity
    return LeaseRequest(
        tenant=identity.tenant.name,
        tier=identity.tier.name,
        cluster=destination.cluster.name,
        priority=identity.tier.priority,
        tokens=destination.charged_tokens,
        tenant_limit=tenant_concurrency(identity),
        tier_limit=identity.tier.tier_concurrency,
        cluster_limit=capacity.requests,
        cluster_token_limit=capacity.tokens,
        reserved={name: tier.reserved for name, tier in policy.tiers.items() if tier.reserved},
    )


def passing_question(identity: Identity) -> LeaseRequest:
    """The question for a request that runs no model: only its tenant's concurrency counts."""
    return LeaseRequest(tenant=identity.tenant.name, tier=identity.tier.name, tenant_limit=tenant_concurrency(identity))


def idle_room_tokens(policy: Policy, identity: Identity, destination: Destination) -> int | None:
    """What the tier can have of the idle cluster: its tokens less what other tiers have reserved; None for no limit."""
    limit = destination.cluster.capacity.tokens
    if limit is None:
        return None
    others = (tier.reserved for name, tier in policy.tiers.items() if name != identity.tier.name)
    return limit - sum(whole_share(share, limit) for share in others)


def can_ever_fit(policy: Policy, identity: Identity, destination: Destination) -> bool:
    """Whether the cluster could hold the request when idle."""
    room = idle_room_tokens(policy, identity, destination)
    return room is None or destination.charged_tokens <= room


@dataclass(slots=True)
class Ladder:
    """The rungs of a tier that one request has not tried yet, and the cheaper places left to try."""

    rungs: list[Rung]
    queue: Queue | None
    cheaper: list[Destination]

    def next(self, refused: Scope) -> Queue | Destination | None:
        """What to try after a refusal: wait, run there, or (None) be told no."""
        while self.rungs:
            match self.rungs[0]:
                case Rung.QUEUE:
                    self.rungs.pop(0)
                    if self.queue is not None:
                        return self.queue
                case Rung.DEGRADE:
                    if self.cheaper and refused in _RELIEVED_BY_DEGRADING:
                        return self.cheaper.pop(0)
                    self.rungs.pop(0)
                case Rung.REJECT:
                    return None
        return None
