"""Who waits for a slot, and whose turn it is.

A line per cluster and tier. Between tiers the better priority goes first, but a tier that starved for
`STARVED_SECONDS` gets a slot now and then. Inside a tier, tenants share by deficit round robin on token cost
and weight; inside a tenant, first come first served. Whoever is refused for a scope of its own (tenant, tier) stands
aside until something of that scope is released, and holds up nobody else. Who is not likely to be served in time is
not let in.

Pure bookkeeping: nothing here waits or reads a clock.
"""

from __future__ import annotations

import itertools
import math
from collections import defaultdict
from collections.abc import Collection
from dataclasses import dataclass

from extproc.lane import Lane, Waiter
from extproc.pace import Pace
from headgate.policy.model import Queue
from headgate.store import LeaseRequest, Scope

STARVED_SECONDS = 20.0
"""A tier of which somebody has waited, and nobody was served, for so long gets the next slot."""
STARVED_GRANTS = 8
"""No more than one slot in so many goes to a starved tier, so that priorities hold however long an overload lasts."""
PATIENT_SECONDS = 20.0
"""A request too big for the room left lets smaller ones pass for so long; then the room is kept for it."""
SURE_SHARE = 0.5
"""Of the longest wait allowed, what the expected one may be. The rest is for what cannot be foreseen: a wait in vain
helps nobody, and a line twice as long serves no more."""
_MAX_PASSED_FOR_TOKENS = 16
"""How many tenants whose request is too big for the room left are passed over before their tier is taken for full."""


@dataclass(frozen=True, slots=True)
class NoPlace:
    """Why a request may not wait (`queue_full`, `queue_too_long`), and how long it would; None when that is unknown."""

    reason: str
    expected_wait_seconds: float | None


class FairQueue:
    """The waiters of all clusters."""

    def __init__(self) -> None:
        self._tickets = itertools.count()
        self._lanes: dict[str, dict[str, Lane]] = {}
        self._waiters: dict[int, Waiter] = {}
        self._paces: defaultdict[str, dict[str, Pace]] = defaultdict(dict)
        self._kept_for: dict[str, Waiter] = {}
        self._grants_in_order: defaultdict[str, int] = defaultdict(lambda: STARVED_GRANTS)
        self._full_tiers: set[str] = set()
        self._full_tenants: defaultdict[str, set[str]] = defaultdict(set)

    def join(
        self,
        request: LeaseRequest,
        *,
        queue: Queue,
        priority: int,
        weight: float,
        size_bytes: int,
        now: float,
        max_wait_seconds: float | None = None,
    ) -> Waiter | NoPlace:
        """Stand at the end of the tier's line for the cluster, unless that is full or its turn may come too late.

        Args:
            max_wait_seconds: this request's own patience; None for the tier's.
        """
        lane = self._lane_for(request, priority)
        lane.pace.look_ahead(queue.max_wait_seconds)
        self._watch(request.cluster or "", now)
        expected_seconds = lane.expected_wait_seconds(request, weight, self._tokens_before(request, priority))
        patience_seconds = queue.max_wait_seconds if max_wait_seconds is None else max_wait_seconds
        if lane.length >= queue.max_depth or lane.size_bytes + size_bytes > queue.max_bytes:
            self._drop_if_empty(request)
            return NoPlace("queue_full", expected_seconds)
        if expected_seconds is not None and expected_seconds > SURE_SHARE * patience_seconds:
            return NoPlace("queue_too_long", expected_seconds)
        ticket = next(self._tickets)
        waiter = Waiter(ticket=ticket, request=request, weight=weight, size_bytes=size_bytes, joined_at=now)
        lane.add(waiter)
        self._watch(request.cluster or "", now)
        self._waiters[ticket] = waiter
        return waiter

    def leave(self, waiter: Waiter, now: float) -> None:
        """Leave the line, served or not. Leaving twice changes nothing."""
        if self._waiters.pop(waiter.ticket, None) is None:
            return
        cluster = waiter.request.cluster or ""
        self._lane(waiter.request).remove(waiter)
        self._drop_if_empty(waiter.request)
        if self._kept_for.get(cluster) is waiter:
            del self._kept_for[cluster]
            for lane in self._lanes_of(cluster):
                lane.is_full = False
        if not self._waiters:
            self._full_tiers.clear()
            self._full_tenants.clear()
        self._watch(cluster, now)

    def next(self, cluster: str, now: float) -> Waiter | None:
        """Whose turn it is at a cluster; None when nobody who could be served waits there."""
        held_back_at = min((lane.priority for lane in self._lanes_of(cluster) if lane.is_held_back), default=math.inf)
        lanes = [lane for lane in self._open_lanes(cluster) if lane.priority <= held_back_at]
        kept_for = self._kept_for.get(cluster)
        if kept_for is not None:
            kept_lane = self._lane(kept_for.request)
            if kept_lane in lanes:
                return kept_for
            lanes = [lane for lane in lanes if lane.priority < kept_lane.priority]
        if not lanes:
            return None
        starved = max(lanes, key=lambda lane: lane.starved_seconds(now))
        if self._grants_in_order[cluster] >= STARVED_GRANTS and starved.starved_seconds(now) >= STARVED_SECONDS:
            return starved.next()
        return min(lanes, key=_rank).next()

    def granted(self, waiter: Waiter, now: float) -> None:
        """A waiter got its slot: its tenant pays, and it leaves."""
        if waiter.ticket not in self._waiters:
            return
        cluster, lane = waiter.request.cluster or "", self._lane(waiter.request)
        is_in_order = lane is min(self._open_lanes(cluster), key=_rank, default=lane)
        self._grants_in_order[cluster] = self._grants_in_order[cluster] + 1 if is_in_order else 0
        lane.charge(waiter)
        self._count(cluster, lane, waiter.cost_tokens, now)
        lane.served_at = now
        self.leave(waiter, now)

    def refused(self, waiter: Waiter, scope: Scope, now: float) -> None:
        """The store said no to the one whose turn it was: who need not be asked again until something is released."""
        if waiter.ticket not in self._waiters:
            return
        request, lane = waiter.request, self._lane(waiter.request)
        cluster = request.cluster or ""
        match scope:
            case Scope.TENANT:
                lane.stand_aside(request.tenant)
                self._full_tenants[request.tenant].add(cluster)
            case Scope.TIER:
                self._full_tiers.add(request.tier)
            case Scope.CLUSTER:
                # Reservations may leave room for other tiers.
                lane.is_full = True
            case Scope.CLUSTER_TOKENS if now - waiter.joined_at >= PATIENT_SECONDS:
                self._kept_for[cluster] = waiter
                for other in self._lanes[cluster].values():
                    other.is_full = True
            case Scope.CLUSTER_TOKENS:
                lane.pass_over(request.tenant)
                lane.is_full = len(lane.too_big) >= _MAX_PASSED_FOR_TOKENS
        if scope is not Scope.CLUSTER_TOKENS and self._kept_for.get(cluster) is waiter:
            # It waits for something else now, and that room is of no use to it.
            del self._kept_for[cluster]
        self._watch(cluster, now)

    def hold_back(self, waiter: Waiter) -> None:
        """The cluster has room, but not yet for this tier; it keeps its claim before lesser ones."""
        lane = self._lane(waiter.request)
        lane.is_full = lane.is_held_back = True

    def released(self, request: LeaseRequest) -> set[str]:
        """Something was released: those it may concern can be asked again. The clusters where somebody waits now."""
        if not self._waiters:
            return set()
        cluster = request.cluster or ""
        concerned = {cluster, *self._full_tenants.pop(request.tenant, ())}
        for other in concerned:
            for lane in self._lanes.get(other, {}).values():
                lane.come_back(request.tenant)
        self.reopen(cluster)
        if request.tier in self._full_tiers:
            self._full_tiers.discard(request.tier)
            concerned |= {name for name, lanes in self._lanes.items() if request.tier in lanes}
        return {name for name in concerned if name in self._lanes}

    def reopen(self, cluster: str) -> None:
        """There may be room at a cluster: all who wait for some can be asked again."""
        for lane in self._lanes_of(cluster):
            lane.is_full = lane.is_held_back = False
            for tenant in list(lane.too_big):
                lane.come_back(tenant)

    def has_claim(self, cluster: str, priority: int) -> bool:
        """Whether somebody of this or a better priority, who could be served, waits there: a newcomer stays behind."""
        if cluster not in self._lanes:
            return False
        claims = self._open_lanes(cluster)
        claims += [lane for lane in self._lanes_of(cluster) if lane.is_held_back]
        if (kept_for := self._kept_for.get(cluster)) is not None:
            claims.append(self._lane(kept_for.request))
        return any(lane.priority <= priority for lane in claims)

    def waits_for_cluster(self, cluster: str, tier: str) -> bool:
        """Whether somebody of the tier waits for room there, and not for a release of its own tenant's."""
        lane = self._lanes.get(cluster, {}).get(tier)
        return lane is not None and lane.is_contended

    def claims_met_in_seconds(self, cluster: str, priority: int) -> float | None:
        """When those of this or a better priority who wait there will have been served; None when that is unknown."""
        waits = [lane.emptied_in_seconds() for lane in self._lanes_of(cluster) if lane.priority <= priority]
        return max((wait for wait in waits if wait is not None), default=None)

    def released_unheard(self) -> None:
        """Anything may have been released: everybody can be asked again."""
        self._full_tiers.clear()
        self._full_tenants.clear()
        for lanes in self._lanes.values():
            for lane in lanes.values():
                lane.come_back_all()

    def heads(self, cluster: str) -> list[tuple[Waiter, int]]:
        """Who could be next at a cluster, a few for every tier, and how many wait in that tier."""
        return [(waiter, lane.length) for lane in self._lanes_of(cluster) for waiter in lane.heads()]

    def clusters(self) -> list[str]:
        """Where somebody waits."""
        return list(self._lanes)

    def depth(self, cluster: str) -> int:
        """How many wait for a cluster."""
        return sum(lane.length for lane in self._lanes_of(cluster))

    def depths(self) -> dict[tuple[str, str], int]:
        """How many wait, by (cluster, tier)."""
        return {(cluster, lane.tier): lane.length for cluster, lanes in self._lanes.items() for lane in lanes.values()}

    def __len__(self) -> int:
        return len(self._waiters)

    def _lanes_of(self, cluster: str) -> Collection[Lane]:
        return self._lanes.get(cluster, {}).values()

    def _open_lanes(self, cluster: str) -> list[Lane]:
        """Those with somebody who could be served."""
        return [
            lane
            for lane in self._lanes_of(cluster)
            if not lane.is_full and lane.tier not in self._full_tiers and lane.oldest() is not None
        ]

    def _tokens_before(self, request: LeaseRequest, priority: int) -> int:
        """What waits for the cluster in better tiers."""
        lanes = self._lanes[request.cluster or ""].values()
        return sum(lane.tokens for lane in lanes if lane.priority < priority and self._lacks_room(lane))

    def _lacks_room(self, lane: Lane) -> bool:
        """Whether it waits for the cluster, and not for a release of its own tier's or tenants'."""
        return lane.is_contended and lane.tier not in self._full_tiers

    def _watch(self, cluster: str, now: float) -> None:
        """Who waits may have changed."""
        lanes = self._lanes.get(cluster, {})
        is_cluster_full = any(self._lacks_room(lane) for lane in lanes.values())
        for tier, pace in self._paces[cluster].items():
            lane = lanes.get(tier)
            pace.watch(now, is_contended=is_cluster_full or (lane is not None and lane.is_contended))

    def _count(self, cluster: str, served: Lane, tokens: int, now: float) -> None:
        """A slot went to a lane: it counts for the tier, and for better ones of which nobody waited."""
        lanes = self._lanes[cluster]
        for tier, pace in self._paces[cluster].items():
            lane = lanes.get(tier)
            would_have_it = pace.priority <= served.priority and (lane is None or not lane.is_contended)
            pace.served(tokens, now, is_own=lane is served or would_have_it)

    def _lane_for(self, request: LeaseRequest, priority: int) -> Lane:
        cluster, tier = request.cluster or "", request.tier
        lanes = self._lanes.setdefault(cluster, {})
        lane = lanes.get(tier)
        if lane is None:
            pace = self._paces[cluster].setdefault(tier, Pace())
            lane = lanes[tier] = Lane(tier, pace)
        lane.priority = lane.pace.priority = priority
        return lane

    def _lane(self, request: LeaseRequest) -> Lane:
        return self._lanes[request.cluster or ""][request.tier]

    def _drop_if_empty(self, request: LeaseRequest) -> None:
        cluster = request.cluster or ""
        lanes = self._lanes[cluster]
        if lanes[request.tier].length == 0:
            del lanes[request.tier]
            if not lanes:
                del self._lanes[cluster]


def _rank(lane: Lane) -> tuple[int, float]:
    """Better priority first; of equal ones, who waits longest."""
    oldest = lane.oldest()
    return lane.priority, oldest.joined_at if oldest is not None else 0.0
