"""The waiters of one tier for one cluster, and whose turn it is among them.

Between tenants deficit round robin on token cost and weight; inside a tenant, first come first served. Knows no other
lane and no clock.
"""

from __future__ import annotations

import heapq
import itertools
import math
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field

from extproc.pace import Pace
from headgate.store import LeaseRequest

_HEADS_ASIDE = 3
_LINES_LOOKED_AT = 64
"""So many of a lane's tenants stand for all when a wait is estimated, so that 10,000 cost no more."""


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
    tokens: int = 0
    deficit_tokens: float = 0.0
    had_turn: bool = False

    @property
    def head(self) -> Waiter:
        return next(iter(self.waiters.values()))


class Lane:
    """The waiters of one tier for one cluster: tenants that can be served, and those that stand aside."""

    def __init__(self, tier: str, pace: Pace) -> None:
        self.tier = tier
        self.pace = pace
        self.priority = 0
        self.length = 0
        self.tokens = 0
        self.size_bytes = 0
        self.is_full = False
        self.is_held_back = False
        self.served_at = -math.inf
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
        line.tokens += waiter.cost_tokens
        self.length += 1
        self.tokens += waiter.cost_tokens
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
        line.tokens -= waiter.cost_tokens
        self.length -= 1
        self.tokens -= waiter.cost_tokens
        self.size_bytes -= waiter.size_bytes
        if not line.waiters:
            # A tenant with nothing waiting keeps no credit.
            self._ring.pop(tenant, None)
            self._aside.pop(tenant, None)
        elif was_head:
            self._note_head(line)
        if was_head and tenant in self.too_big:
            # Whoever is behind it may fit.
            self.is_full = False
            self.come_back(tenant)

    def oldest(self) -> Waiter | None:
        """The longest waiting of those who can be served."""
        while self._by_age:
            _, ticket, tenant = self._by_age[0]
            line = self._ring.get(tenant)
            if line is not None and line.head.ticket == ticket:
                return line.head
            heapq.heappop(self._by_age)
        return None

    def starved_seconds(self, now: float) -> float:
        """For how long somebody has waited for the cluster and nobody was served."""
        oldest = self.oldest()
        return 0.0 if oldest is None else now - max(self.served_at, oldest.joined_at)

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

    @property
    def is_contended(self) -> bool:
        """Whether somebody waits for the cluster, and not for a release of its own tenant's."""
        return bool(self._ring or self.too_big)

    def expected_wait_seconds(self, request: LeaseRequest, weight: float, tokens_before: int = 0) -> float | None:
        """How long a newcomer would wait, at the pace of late; None when that is unknown or nobody is before it.

        Args:
            tokens_before: what waits in other lanes that go first.
        """
        tenant = request.tenant
        if not self.is_contended or (tenant in self._aside and tenant not in self.too_big):
            return None
        own = self._ring.get(tenant) or self._aside.get(tenant)
        own_tokens = max(1, request.tokens) + (own.tokens if own is not None else 0)
        # While its tenant's line is served, every other gets its share of turns, or all it waits for.
        others = [
            min(line.tokens, own_tokens * line.weight / weight)
            for line in itertools.islice(self._contending(), _LINES_LOOKED_AT)
            if line is not own
        ]
        many = len(self._ring) + len(self.too_big) - (own is not None)
        ahead = tokens_before + own_tokens + sum(others) * many / max(1, len(others))
        return self.pace.seconds_for(ahead, max(request.tokens, self.tokens / self.length))

    def emptied_in_seconds(self) -> float | None:
        """How long serving all who wait for the cluster takes; None when that is unknown."""
        if not self.is_contended:
            return None
        lines = list(itertools.islice(self._contending(), _LINES_LOOKED_AT))
        tokens = sum(line.tokens for line in lines) * (len(self._ring) + len(self.too_big)) / len(lines)
        return self.pace.seconds_for(tokens, self.tokens / self.length)

    def _contending(self) -> Iterator[_TenantLine]:
        """The tenants that wait for the cluster: those that can be served, and those too big for the room left."""
        return itertools.chain(self._ring.values(), (self._aside[tenant] for tenant in self.too_big))

    def stand_aside(self, tenant: str) -> None:
        line = self._ring.pop(tenant, None)
        if line is not None:
            line.had_turn = False
            self._aside[tenant] = line

    def pass_over(self, tenant: str) -> None:
        """Let others pass one whose request is too big for the room left; it still waits for the cluster."""
        if tenant in self._ring:
            self.stand_aside(tenant)
            self.too_big.add(tenant)

    def come_back(self, tenant: str) -> None:
        self.too_big.discard(tenant)
        line = self._aside.pop(tenant, None)
        if line is not None:
            self._ring[tenant] = line
            self._note_head(line)

    def heads(self) -> list[Waiter]:
        """Who could be next: whose turn it is, and the first of some tenants that stand aside."""
        turn = self.next()
        aside = itertools.islice(self._aside.values(), _HEADS_ASIDE)
        return [*([turn] if turn else []), *(line.head for line in aside)]

    def come_back_all(self) -> None:
        """Everybody can be served again."""
        for tenant in list(self._aside):
            self.come_back(tenant)
        self.is_full = self.is_held_back = False

    def _note_head(self, line: _TenantLine) -> None:
        head = line.head
        heapq.heappush(self._by_age, (head.joined_at, head.ticket, head.request.tenant))
