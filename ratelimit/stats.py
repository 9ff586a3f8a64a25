"""What is counted about limits, under the reference's names, with a bounded number of series.

Plain numbers: who shows them, and in which format, is not known here.
"""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from ratelimit.charges import Tally
from ratelimit.limiter import Plan, Planned
from ratelimit.limits import Code, Verdict

MAX_SERIES = 10_000
OTHER = "other"
_IPV4 = re.compile(r"[0-9]+\.[0-9]+\.[0-9]+\.[0-9]+")

Key = tuple[str, ...]

Record = Callable[[str, str, Code], None]
"""Called once per limited descriptor with domain, metric key and code. Whoever counts caps the labels."""


@dataclass(slots=True)
class LimitCounters:
    """Hits on one limit, in the reference's classes."""

    total_hits: int = 0
    over_limit: int = 0
    near_limit: int = 0
    within_limit: int = 0
    over_limit_with_local_cache: int = 0
    shadow_mode: int = 0
    total_negative_hits: int = 0


@dataclass(slots=True)
class ServiceCounters:
    """What happens to the service as a whole."""

    total_requests: int = 0
    service_error: int = 0
    redis_error: int = 0
    config_load_success: int = 0
    config_load_error: int = 0
    global_shadow_mode: int = 0


class Stats:
    """All counters. Past `max_series` limits and domains count as `other`."""

    def __init__(
        self, near_limit_ratio: float = 0.8, max_series: int = MAX_SERIES, record: Record = lambda *_: None
    ) -> None:
        self.service = ServiceCounters()
        self.limits: dict[Key, LimitCounters] = {}
        self.domains_not_found: dict[str, int] = {}
        self._ratio = _float32(near_limit_ratio)
        self._max_series = max_series
        self._record = record

    def asked(self, domain: str, plan: Plan) -> None:
        """Count a request's hits; before the store is asked, as the reference does."""
        self.service.total_requests += 1
        if not plan.is_known_domain:
            name = (
                domain if domain in self.domains_not_found or len(self.domains_not_found) < self._max_series else OTHER
            )
            self.domains_not_found[name] = self.domains_not_found.get(name, 0) + 1
        for item in plan.items:
            if item.match is not None:
                counters = self._counters(item.match.metric)
                if item.hits < 0:
                    counters.total_negative_hits -= item.hits
                else:
                    counters.total_hits += item.hits

    def answered(self, plan: Plan, tallies: Sequence[Tally], verdict: Verdict) -> None:
        """Count what became of a request."""
        if verdict.is_shadowed:
            self.service.global_shadow_mode += 1
        answers = iter(tallies)
        for item, status in zip(plan.items, verdict.statuses, strict=True):
            tally = next(answers) if item.is_counted else None
            if item.match is None:
                continue
            self._record(item.match.metric[0], item.match.metric_key, status.code)
            if item.hits < 0:
                continue
            counters = self._counters(item.match.metric)
            if tally is None:
                counters.within_limit += item.hits
            else:
                self._classify(counters, item, tally)

    def named(self) -> Iterator[tuple[str, int]]:
        """Every counter that is not 0, by the reference's statsd name."""
        for name in ("config_load_success", "config_load_error", "global_shadow_mode"):
            yield f"ratelimit.service.{name}", getattr(self.service, name)
        for name in ("redis_error", "service_error"):
            yield f"ratelimit.service.call.should_rate_limit.{name}", getattr(self.service, name)
        yield "ratelimit_server.ShouldRateLimit.total_requests", self.service.total_requests
        for domain, count in self.domains_not_found.items():
            yield f"ratelimit.service.rate_limit.{sanitized(domain)}.domain_not_found", count
        for key, counters in self.limits.items():
            prefix = f"ratelimit.service.rate_limit.{sanitized('.'.join(key))}"
            for name in LimitCounters.__slots__:
                yield f"{prefix}.{name}", getattr(counters, name)

    def _not_found(self, domain: str) -> None:
        if domain not in self.domains_not_found and len(self.domains_not_found) >= self._max_series:
            domain = OTHER
        self.domains_not_found[domain] = self.domains_not_found.get(domain, 0) + 1

    def _counters(self, key: Key) -> LimitCounters:
        counters = self.limits.get(key)
        if counters is None:
            if len(self.limits) >= self._max_series:
                key = (OTHER,)
            counters = self.limits.setdefault(key, LimitCounters())
        return counters

    def _classify(self, counters: LimitCounters, item: Planned, tally: Tally) -> None:
        assert item.match is not None  # noqa: S101  (counted items have a match)
        limit, hits = item.match.limit, item.hits
        if tally.is_cached:
            counters.over_limit += hits
            counters.over_limit_with_local_cache += hits
        else:
            over, near = split_hits(hits, tally.attempted, limit.capacity, self._near(limit.capacity))
            counters.over_limit += over
            counters.near_limit += near
            if not tally.is_over:
                counters.within_limit += hits
        if tally.is_over and limit.shadow_mode:
            counters.shadow_mode += hits

    def _near(self, limit: int) -> int:
        return math.floor(_float32(_float32(limit) * self._ratio))


def split_hits(hits: int, after: int, limit: int, near: int) -> tuple[int, int]:
    """How many of the hits lie over the limit, and how many between the threshold `near` and the limit."""
    before = after - hits
    if after > limit:
        return (hits, 0) if before >= limit else (after - limit, limit - max(near, before))
    return 0, min(hits, max(0, after - near))


def sanitized(name: str) -> str:
    """A name as statsd takes it."""
    name = name.replace(":", "_").replace("|", "_")
    return _IPV4.sub(lambda address: address.group().replace(".", "_"), name)


def _float32(number: float) -> float:
    """The nearest 32-bit float: the reference computes its threshold with those."""
    value: float = struct.unpack("f", struct.pack("f", number))[0]
    return value
