"""What finished requests of the last five minutes come to: per tenant what they used, per tier how soon they began."""

from __future__ import annotations

from bisect import insort
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from headgate.cost import cost_dollars
from headgate.policy.model import Policy
from headgate.record import RequestRecord

WINDOW_SECONDS = 300.0
_SLICE_SECONDS = 20.0
_MAX_TENANTS = 1000
"""A slice counts no more of them; the rest are `other`."""
_MAX_TIMES = 500
"""A slice keeps no more times of a tier: the later ones of a busy slice are left out."""
OTHER = "other"


@dataclass(slots=True)
class Usage:
    """What a tenant used."""

    requests: int = 0
    tokens: int = 0
    cost_dollars: float = 0.0

    def add(self, other: Usage) -> None:
        """Count another's as well."""
        self.requests += other.requests
        self.tokens += other.tokens
        self.cost_dollars += other.cost_dollars


@dataclass(slots=True)
class _Slice:
    began_at: float
    tenants: dict[str, Usage] = field(default_factory=dict)
    first_tokens: dict[str, list[float]] = field(default_factory=dict)


class RecentRequests:
    """Follows the records; `clock` in seconds, monotonic; `policy` yields the one in force, for its prices."""

    def __init__(self, clock: Callable[[], float], policy: Callable[[], Policy]) -> None:
        self._clock = clock
        self._policy = policy
        self._slices: deque[_Slice] = deque()

    def note(self, record: RequestRecord) -> None:
        """Count one finished request."""
        current = self._current()
        if record.tenant:
            tokens = record.used_prompt_tokens + record.used_output_tokens
            tenant = record.tenant
            if tenant not in current.tenants and len(current.tenants) >= _MAX_TENANTS:
                tenant = OTHER
            usage = current.tenants.setdefault(tenant, Usage())
            usage.add(Usage(1, tokens, self._cost_dollars(record) if record.has_run else 0.0))
        if record.is_stream and record.status < 400 and record.first_byte_seconds is not None:
            times = current.first_tokens.setdefault(record.tier, [])
            if len(times) < _MAX_TIMES:
                insort(times, record.first_byte_seconds)

    def usage(self) -> dict[str, Usage]:
        """By tenant, the heaviest first."""
        total: dict[str, Usage] = {}
        for each in self._fresh():
            for tenant, usage in each.tenants.items():
                total.setdefault(tenant, Usage()).add(usage)
        return dict(sorted(total.items(), key=lambda entry: -entry[1].tokens))

    def first_token_seconds(self, tier: str, share: float) -> float | None:
        """The time within which that share of a tier's requests had their first token; None without any."""
        times = sorted(_joined(each.first_tokens.get(tier, ()) for each in self._fresh()))
        return times[min(len(times) - 1, int(share * len(times)))] if times else None

    def _cost_dollars(self, record: RequestRecord) -> float:
        cluster = self._policy().clusters.get(record.cluster)
        return cost_dollars(record, cluster.price) if cluster is not None else 0.0

    def _current(self) -> _Slice:
        now = self._clock()
        if not self._slices or now - self._slices[-1].began_at >= _SLICE_SECONDS:
            self._fresh()
            self._slices.append(_Slice(now))
        return self._slices[-1]

    def _fresh(self) -> Iterable[_Slice]:
        oldest = self._clock() - WINDOW_SECONDS
        while self._slices and self._slices[0].began_at <= oldest:
            self._slices.popleft()
        return self._slices


def _joined(lists: Iterable[Iterable[float]]) -> list[float]:
    return [value for each in lists for value in each]
