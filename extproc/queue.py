"""Who waits for a slot, and whose turn it is.

A line per cluster and tier. Between tiers the better priority goes first, and every `AGEING_SECONDS` of waiting count
as one step of priority, so that no tier starves. Inside a tier, tenants share by deficit round robin on token cost
and weight; inside a tenant, first come first served. Whoever is refused for a scope of its own (tenant, tier) stands
aside until something of that scope is released, and holds up nobody else. Who cannot be served in time is not let in.

Pure bookkeeping: nothing here waits or reads a clock.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from dataclasses import dataclass

from extproc.lane import Lane, Waiter
from extproc.pace import Pace
from headgate.policy.model import Queue
from headgate.store import LeaseRequest, Scope

AGEING_SECONDS = 20.0
"""A request of priority p is served before fresh ones of priority q < p after (p - q) times this, at the latest."""
TOO_LONG_MARGIN = 1.25
"""How far the expected wait has to exceed the longest one allowed before nobody is let in."""
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
        self._paces: defaultdict[tuple[str, str], Pace] = defaultdict(Pace)
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
        """Stand at the end of the tier's line for the cluster, unless that is full or its turn comes clearly too late.

        Args:
            max_wait_seconds: this request's own patience; None for the tier's.
        """
        lane = self._lane_for(request, priority)
        lane.pace.watch(now, is_contended=lane.is_contended, max_wait_seconds=queue.max_wait_seconds)
        expected_seconds = lane.expected_wait_seconds(request, weight)
        patience_seconds = queue.max_wait_seconds if max_wait_seconds is None else max_wait_seconds
        if lane.length >= queue.max_depth or lane.size_bytes + size_bytes > queue.max_bytes:
            self._drop_if_empty(request)
            return NoPlace("queue_full", expected_seconds)
        if expected_seconds is not None and expected_seconds > TOO_LONG_MARGIN * patience_seconds:
            return NoPlace("queue_too_long", expected_seconds)
        ticket = next(self._tickets)
        waiter = Waiter(ticket=ticket, request=request, weight=weight, size_bytes=size_bytes, joined_at=now)
        lane.add(waiter)
        lane.pace.watch(now, is_contended=lane.is_contended)
        self._waiters[ticket] = waiter
        return waiter

    def leave(self, waiter: Waiter) -> None:
        """Leave the line, served or not. Leaving twice changes nothing."""
        if self._waiters.pop(waiter.ticket, None) is not None:
            self._lane(waiter.request).remove(waiter)
            self._drop_if_empty(waiter.request)

    def next(self, cluster: str, now: float) -> Waiter | None:
        """Whose turn it is at a cluster; None when nobody who could be served waits there."""
        ranked = [
            (lane.priority - (now - oldest.joined_at) // AGEING_SECONDS, oldest.joined_at, oldest.ticket, lane, oldest)
            for lane in self._lanes.get(cluster, {}).values()
            if not lane.is_full and lane.tier not in self._full_tiers and (oldest := lane.oldest()) is not None
        ]
        if not ranked:
            return None
        *_, lane, oldest = min(ranked, key=lambda entry: entry[:3])
        # Age serves the one who has it, not whose turn it is.
        return oldest if now - oldest.joined_at >= AGEING_SECONDS else lane.next()

    def granted(self, waiter: Waiter, now: float) -> None:
        """A waiter got its slot: its tenant pays, and it leaves."""
        if waiter.ticket not in self._waiters:
            return
        lane = self._lane(waiter.request)
        lane.charge(waiter)
        lane.pace.watch(now, is_contended=True)
        lane.pace.served(waiter.cost_tokens)
        self.leave(waiter)
        lane.pace.watch(now, is_contended=lane.is_contended)

    def refused(self, waiter: Waiter, scope: Scope, now: float) -> None:
        """The store said no to the one whose turn it was: who need not be asked again until something is released."""
        if waiter.ticket not in self._waiters:
            return
        request, lane = waiter.request, self._lane(waiter.request)
        match scope:
            case Scope.TENANT:
                lane.stand_aside(request.tenant)
                lane.pace.watch(now, is_contended=lane.is_contended)
                self._full_tenants[request.tenant].add(request.cluster or "")
            case Scope.TIER:
                self._full_tiers.add(request.tier)
            case Scope.CLUSTER:
                # Reservations may leave room for other tiers.
                lane.is_full = True
            case Scope.CLUSTER_TOKENS if now - waiter.joined_at >= AGEING_SECONDS:
                # The room that frees is kept together for the one who has waited long enough.
                for other in self._lanes[request.cluster or ""].values():
                    other.is_full = True
            case Scope.CLUSTER_TOKENS:
                lane.stand_aside(request.tenant)
                lane.too_big.add(request.tenant)
                lane.is_full = len(lane.too_big) >= _MAX_PASSED_FOR_TOKENS

    def released(self, request: LeaseRequest) -> set[str]:
        """Something was released: those it may concern can be asked again. The clusters where somebody waits now."""
        cluster = request.cluster or ""
        concerned = {cluster, *self._full_tenants.pop(request.tenant, ())}
        for other in concerned:
            for lane in self._lanes.get(other, {}).values():
                lane.come_back(request.tenant)
        for lane in self._lanes.get(cluster, {}).values():
            lane.is_full = False
            while lane.too_big:
                lane.come_back(lane.too_big.pop())
        if request.tier in self._full_tiers:
            self._full_tiers.discard(request.tier)
            concerned |= {name for name, lanes in self._lanes.items() if request.tier in lanes}
        return {name for name in concerned if name in self._lanes}

    def has_claim(self, cluster: str, priority: int) -> bool:
        """Whether somebody of this or a better priority, who could be served, waits there: a newcomer stays behind."""
        return any(
            not lane.is_full
            and lane.priority <= priority
            and lane.tier not in self._full_tiers
            and lane.oldest() is not None
            for lane in self._lanes.get(cluster, {}).values()
        )

    def waits_for_cluster(self, cluster: str, tier: str) -> bool:
        """Whether somebody of the tier waits for room there, and not for a release of its own tenant's."""
        lane = self._lanes.get(cluster, {}).get(tier)
        return lane is not None and lane.is_contended

    def claims_met_in_seconds(self, cluster: str, priority: int) -> float | None:
        """When those of this or a better priority who wait there will have been served; None when that is unknown."""
        waits = [
            lane.emptied_in_seconds() for lane in self._lanes.get(cluster, {}).values() if lane.priority <= priority
        ]
        return max((wait for wait in waits if wait is not None), default=None)

    def depth(self, cluster: str) -> int:
        """How many wait for a cluster."""
        return sum(lane.length for lane in self._lanes.get(cluster, {}).values())

    def depths(self) -> dict[tuple[str, str], int]:
        """How many wait, by (cluster, tier)."""
        return {(cluster, lane.tier): lane.length for cluster, lanes in self._lanes.items() for lane in lanes.values()}

    def __len__(self) -> int:
        return len(self._waiters)

    def _lane_for(self, request: LeaseRequest, priority: int) -> Lane:
        cluster, tier = request.cluster or "", request.tier
        lanes = self._lanes.setdefault(cluster, {})
        lane = lanes.get(tier)
        if lane is None:
            lane = lanes[tier] = Lane(tier, self._paces[(cluster, tier)])
        lane.priority = priority
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
