"""Who waits for a slot, and whose turn it is.

A line per cluster and tier. Between tiers the better priority goes first, and every `AGEING_SECONDS` of waiting count
as one step of priority, so that no tier starves. Inside a tier, tenants share by deficit round robin on token cost
and weight; inside a tenant, first come first served. Whoever is refused for a scope of its own (tenant, tier) stands
aside until something of that scope is released, and holds up nobody else.

Pure bookkeeping: nothing here waits or reads a clock.
"""

from __future__ import annotations

import heapq
import itertools
from collections import OrderedDict, defaultdict
from dataclasses import dataclass, field

from headgate.policy.model import Queue
from headgate.store import LeaseRequest, Scope

AGEING_SECONDS = 20.0
"""A request of priority p is served before fresh ones of priority q < p after (p - q) times this, at the latest."""
_HEADS_ASIDE = 3
_MAX_PASSED_FOR_TOKENS = 16
"""How many tenants whose request is too big for the room left are passed over before their tier is taken for full."""


@dataclass(slots=True, eq=False, kw_only=True)
class Waiter:
    """One waiting request; `joined_at` in seconds, monotonic."""

    ticket: int
    request: LeaseRequest
    weight: float
    size_bytes: int
    joined_at: float

    @property
    def cost_tokens(self) -> int:
        """What its turn costs its tenant."""
        return max(1, self.request.tokens)


@dataclass(slots=True)
class _TenantLine:
    """One tenant's waiters in a lane, oldest first, and what it may still spend before the next tenant's turn."""

    weight: float
    waiters: dict[int, Waiter] = field(default_factory=dict)
    deficit_tokens: float = 0.0
    had_turn: bool = False

    @property
    def head(self) -> Waiter:
        return next(iter(self.waiters.values()))


class _Lane:
    """The waiters of one tier for one cluster: tenants that can be served, and those that stand aside."""

    def __init__(self, tier: str) -> None:
        self.tier = tier
        self.priority = 0
        self.length = 0
        self.size_bytes = 0
        self.is_full = False
        self.too_big: set[str] = set()
        self._ring: OrderedDict[str, _TenantLine] = OrderedDict()
        self._aside: dict[str, _TenantLine] = {}
        # Heads of lines by age; an entry whose waiter is no head any more, or stands aside, goes when it surfaces.
        self._by_age: list[tuple[float, int, str]] = []
        self._quantum_tokens = 1

    def add(self, waiter: Waiter) -> None:
        tenant = waiter.request.tenant
        line = self._ring.get(tenant) or self._aside.get(tenant)
        if line is None:
            line = self._ring[tenant] = _TenantLine(waiter.weight)
        line.waiters[waiter.ticket] = waiter
        self.length += 1
        self.size_bytes += waiter.size_bytes
        # A quantum no smaller than any cost lets every visit serve somebody: a turn is found in constant time.
        self._quantum_tokens = max(self._quantum_tokens, waiter.cost_tokens)
        if len(line.waiters) == 1:
            self._note_head(line)

    def remove(self, waiter: Waiter) -> None:
        tenant = waiter.request.tenant
        line = self._ring.get(tenant) or self._aside[tenant]
        was_head = line.head is waiter
        del line.waiters[waiter.ticket]
        self.length -= 1
        self.size_bytes -= waiter.size_bytes
        if not line.waiters:
            # A tenant with nothing waiting keeps no credit.
            self._ring.pop(tenant, None)
            self._aside.pop(tenant, None)
        elif was_head:
            self._note_head(line)

    def oldest(self) -> Waiter | None:
        """The longest waiting of those who can be served."""
        while self._by_age:
            _, ticket, tenant = self._by_age[0]
            line = self._ring.get(tenant)
            if line is not None and line.head.ticket == ticket:
                return line.head
            heapq.heappop(self._by_age)
        return None

    def next(self) -> Waiter | None:
        """Whose turn it is by deficit round robin."""
        while self._ring:
            tenant, line = next(iter(self._ring.items()))
            if not line.had_turn:
                line.had_turn = True
                line.deficit_tokens += self._quantum_tokens * line.weight
            if line.deficit_tokens >= line.head.cost_tokens:
                return line.head
            line.had_turn = False
            self._ring.move_to_end(tenant)
        return None

    def charge(self, waiter: Waiter) -> None:
        """Let a served waiter's tenant pay; before it is removed."""
        self._ring[waiter.request.tenant].deficit_tokens -= waiter.cost_tokens

    def stand_aside(self, tenant: str) -> None:
        line = self._ring.pop(tenant, None)
        if line is not None:
            line.had_turn = False
            self._aside[tenant] = line

    def come_back(self, tenant: str) -> None:
        line = self._aside.pop(tenant, None)
        if line is not None:
            self._ring[tenant] = line
            self._note_head(line)

    def heads(self, now: float) -> list[Waiter]:
        """Who could be next: whose turn it is, and the first of some tenants that stand aside."""
        oldest = self.oldest()
        turn = oldest if oldest is not None and now - oldest.joined_at >= AGEING_SECONDS else self.next()
        aside = itertools.islice(self._aside.values(), _HEADS_ASIDE)
        return [*([turn] if turn else []), *(line.head for line in aside)]

    def come_back_all(self) -> None:
        for tenant in list(self._aside):
            self.come_back(tenant)
        self.too_big.clear()
        self.is_full = False

    def _note_head(self, line: _TenantLine) -> None:
        head = line.head
        heapq.heappush(self._by_age, (head.joined_at, head.ticket, head.request.tenant))


class FairQueue:
    """The waiters of all clusters."""

    def __init__(self) -> None:
        self._tickets = itertools.count()
        self._lanes: dict[str, dict[str, _Lane]] = {}
        self._waiters: dict[int, Waiter] = {}
        self._full_tiers: set[str] = set()
        self._full_tenants: defaultdict[str, set[str]] = defaultdict(set)

    def join(
        self, request: LeaseRequest, *, queue: Queue, priority: int, weight: float, size_bytes: int, now: float
    ) -> Waiter | None:
        """Stand at the end of the tier's line for the cluster; None when that is full (requests or bytes)."""
        lane = self._lanes.setdefault(request.cluster or "", {}).setdefault(request.tier, _Lane(request.tier))
        lane.priority = priority
        if lane.length >= queue.max_depth or lane.size_bytes + size_bytes > queue.max_bytes:
            self._drop_if_empty(request)
            return None
        ticket = next(self._tickets)
        waiter = Waiter(ticket=ticket, request=request, weight=weight, size_bytes=size_bytes, joined_at=now)
        lane.add(waiter)
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

    def granted(self, waiter: Waiter) -> None:
        """A waiter got its slot: its tenant pays, and it leaves."""
        if waiter.ticket in self._waiters:
            self._lane(waiter.request).charge(waiter)
            self.leave(waiter)

    def refused(self, waiter: Waiter, scope: Scope, now: float) -> None:
        """The store said no to the one whose turn it was: who need not be asked again until something is released."""
        if waiter.ticket not in self._waiters:
            return
        request, lane = waiter.request, self._lane(waiter.request)
        match scope:
            case Scope.TENANT:
                lane.stand_aside(request.tenant)
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

    def released_unheard(self) -> None:
        """Anything may have been released: everybody can be asked again."""
        self._full_tiers.clear()
        self._full_tenants.clear()
        for lanes in self._lanes.values():
            for lane in lanes.values():
                lane.come_back_all()

    def heads(self, cluster: str, now: float) -> list[tuple[Waiter, int]]:
        """Who could be next at a cluster, a few for every tier, and how many wait in that tier."""
        return [(waiter, lane.length) for lane in self._lanes.get(cluster, {}).values() for waiter in lane.heads(now)]

    def clusters(self) -> list[str]:
        """Where somebody waits."""
        return list(self._lanes)

    def depth(self, cluster: str) -> int:
        """How many wait for a cluster."""
        return sum(lane.length for lane in self._lanes.get(cluster, {}).values())

    def depths(self) -> dict[tuple[str, str], int]:
        """How many wait, by (cluster, tier)."""
        return {(cluster, lane.tier): lane.length for cluster, lanes in self._lanes.items() for lane in lanes.values()}

    def __len__(self) -> int:
        return len(self._waiters)

    def _lane(self, request: LeaseRequest) -> _Lane:
        return self._lanes[request.cluster or ""][request.tier]

    def _drop_if_empty(self, request: LeaseRequest) -> None:
        cluster = request.cluster or ""
        lanes = self._lanes[cluster]
        if lanes[request.tier].length == 0:
            del lanes[request.tier]
            if not lanes:
                del self._lanes[cluster]
