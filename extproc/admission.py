"""Whether a request runs now: the question put to the store, and the steps left when the answer is no."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from msgspec.structs import replace

from extproc.identity import Identity
from extproc.inspection.request import InferenceRequest
from extproc.routing import Destination, Signals, degraded_routes
from headgate.policy.model import Cluster, Policy, Queue, Rung, Tier
from headgate.store import LeaseRequest, Scope, whole_share

RECOVERING = "cluster_recovering"
"""The reason of a request that was degraded because those just before it were."""
UNAVAILABLE = "cluster_unavailable"
"""The reason of one that was degraded because no server of its first choice takes requests."""
BACKLOG_SHARE = 0.125
"""Of the tightest promised time to first token, that prompts of other tiers may fill before they have to wait."""
_RELIEVED_BY_DEGRADING = (Scope.CLUSTER, Scope.CLUSTER_TOKENS)


def tenant_concurrency(identity: Identity) -> int | None:
    """The tenant's own limit, or else what its tier gives each tenant."""
    own = identity.tenant.limits.concurrency
    return own if own is not None else identity.tier.tenant_concurrency


def question(policy: Policy, identity: Identity, destination: Destination, request_limit: int | None) -> LeaseRequest:
    """Everything the store needs to say yes or no in one step.

    Args:
        request_limit: of the cluster, as policy or experience has it now.
    """
    capacity = destination.cluster.capacity
    per_minute = capacity.prompt_tokens_per_minute
    return LeaseRequest(
        tenant=identity.tenant.name,
        tier=identity.tier.name,
        cluster=destination.cluster.name,
        priority=identity.tier.priority,
        tokens=destination.charged_tokens,
        tenant_limit=tenant_concurrency(identity),
        tier_limit=identity.tier.tier_concurrency,
        cluster_limit=request_limit,
        cluster_token_limit=capacity.tokens,
        reserved=policy.reservations,
        prompt_tokens=destination.prompt_tokens,
        prompt_tokens_per_second=None if per_minute is None else per_minute / 60.0,
        max_backlog_seconds=None if per_minute is None else max_backlog_seconds(policy, identity.tier),
    )


def max_backlog_seconds(policy: Policy, tier: Tier) -> float | None:
    """How long a tier's request may have to wait for prompts before its own; None for a tier that is not held back.

    That is the one with the tightest promise, for whose sake the others are, and those that would be degraded or
    refused instead of waiting.
    """
    promises = [each.ttft_slo_seconds for each in policy.tiers.values() if each.ttft_slo_seconds is not None]
    if not promises or tier.ttft_slo_seconds == min(promises) or tier.on_overload[0] is not Rung.QUEUE:
        return None
    return BACKLOG_SHARE * min(promises)


def passing_question(identity: Identity) -> LeaseRequest:
    """The question for a request that runs no model: only its tenant's concurrency counts."""
    return LeaseRequest(tenant=identity.tenant.name, tier=identity.tier.name, tenant_limit=tenant_concurrency(identity))


def is_closed(request: LeaseRequest) -> bool:
    """Whether some limit of 0 lets nothing through, however long anybody waits."""
    return 0 in (request.tenant_limit, request.tier_limit, request.cluster_limit, request.cluster_token_limit)


def place_to_wait(identity: Identity, first: Destination) -> Queue | None:
    """The tier's queue; none where a limit of 0 lets nothing through, however long anybody waits."""
    limits = (tenant_concurrency(identity), identity.tier.tier_concurrency, first.cluster.capacity.requests)
    return None if 0 in limits else identity.tier.queue


def idle_room_tokens(policy: Policy, identity: Identity, cluster: Cluster) -> int | None:
    """What the tier can have of the idle cluster: its tokens less what other tiers have reserved; None for no limit."""
    limit = cluster.capacity.tokens
    if limit is None:
        return None
    others = (tier.reserved for name, tier in policy.tiers.items() if name != identity.tier.name)
    return limit - sum(whole_share(share, limit) for share in others)


def can_ever_fit(policy: Policy, identity: Identity, destination: Destination) -> bool:
    """Whether the cluster could hold the request when idle."""
    room = idle_room_tokens(policy, identity, destination.cluster)
    return room is None or destination.charged_tokens <= room


def cheaper_places(
    policy: Policy, identity: Identity, request: InferenceRequest, first: Destination, signals: Signals
) -> Iterator[Destination]:
    """The cheaper places that could hold the request when idle; worked out when asked for, which is seldom."""
    for place in degraded_routes(policy, identity, request, first):
        if can_ever_fit(policy, identity, place) and not signals.is_unavailable(place.cluster.name):
            yield place


def ladder_of(
    policy: Policy, identity: Identity, request: InferenceRequest, first: Destination, signals: Signals
) -> Ladder:
    """What a request may try when its first choice is full."""
    cheaper = cheaper_places(policy, identity, request, first, signals)
    return Ladder(identity.tier.on_overload, place_to_wait(identity, first), first, cheaper)


class Ladder:
    """The rungs of a tier that one request has not tried yet: its first choice, and the cheaper places left to try."""

    __slots__ = ("_cheaper", "_is_first_skipped", "_queue", "_rungs", "first")

    def __init__(
        self, rungs: Sequence[Rung], queue: Queue | None, first: Destination, cheaper: Iterable[Destination]
    ) -> None:
        self._rungs = list(rungs)
        self._queue = queue
        self.first = first
        self._cheaper = iter(cheaper)
        self._is_first_skipped = False

    def start_degraded(self, signals: Signals) -> Destination:
        """Where to try first while the tier is degraded at its first choice: a cheaper place, before any wait too."""
        if Rung.DEGRADE not in self._rungs or (place := next(self._cheaper, None)) is None:
            return self.first
        self._rungs = [Rung.DEGRADE, *(rung for rung in self._rungs if rung is not Rung.DEGRADE)]
        self._is_first_skipped = True
        is_unavailable = signals.is_unavailable(self.first.cluster.name)
        return replace(place, reason=UNAVAILABLE if is_unavailable else RECOVERING)

    def next(self, refused: Scope) -> Queue | Destination | None:
        """What to try after a refusal: wait (for the first choice), run there, or (None) be told no."""
        while self._rungs:
            match self._rungs[0]:
                case Rung.QUEUE:
                    self._rungs.pop(0)
                    if self._queue is not None:
                        return self._queue
                case Rung.DEGRADE:
                    if refused in _RELIEVED_BY_DEGRADING and (place := self._place()) is not None:
                        return place
                    self._rungs.pop(0)
                case Rung.REJECT:
                    return None
        return None

    def _place(self) -> Destination | None:
        if (place := next(self._cheaper, None)) is not None:
            return place
        if self._is_first_skipped:
            # It may have room by now, or just not enough for all to return.
            self._is_first_skipped = False
            return self.first
        return None
