"""From a request to its verdict, in two pure steps around the one question to the counters.

`plan` says what to charge, `judge` what the tallies mean. Knows no protobuf, no clock and no store; semantics are
those of envoyproxy/ratelimit.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from ratelimit.limits import UINT32_MAX, Code, Descriptor, RateLimitRequest, Status, Verdict
from ratelimit.matching import Configuration, Domain, Match
from ratelimit.windows import Charge, Tally

MAX_DESCRIPTORS = 256
MAX_ENTRIES = 64


def fault(request: RateLimitRequest) -> str | None:
    """Why a request cannot be answered at all, in the reference's words where it has any."""
    if not request.domain:
        return "rate limit domain must not be empty"
    if not request.descriptors:
        return "rate limit descriptor list must not be empty"
    if len(request.descriptors) > MAX_DESCRIPTORS:
        return f"rate limit descriptor list must not hold more than {MAX_DESCRIPTORS} descriptors"
    if any(len(descriptor.entries) > MAX_ENTRIES for descriptor in request.descriptors):
        return f"rate limit descriptor must not hold more than {MAX_ENTRIES} entries"
    return None


@dataclass(frozen=True, slots=True)
class Planned:
    """One descriptor of a request: the limit it falls under, and how much it asks for."""

    match: Match | None
    hits: int

    @property
    def is_counted(self) -> bool:
        """Whether the counters have to be asked."""
        return self.match is not None and not self.match.limit.unlimited


@dataclass(frozen=True, slots=True)
class Plan:
    """What a request is charged, if anything: one item per descriptor, in order."""

    items: tuple[Planned, ...]
    all_or_nothing: bool = False

    def charges(self) -> tuple[Charge, ...]:
        """One charge per counted item, in order."""
        return tuple(_charges(self.items))


def plan(request: RateLimitRequest, configuration: Configuration) -> Plan:
    """Find each descriptor's limit and leave out those that another one replaces."""
    domain = configuration.domains.get(request.domain)
    if domain is None:
        return Plan(tuple(Planned(None, request.hits(descriptor)) for descriptor in request.descriptors))
    matches = [_match(domain, descriptor) for descriptor in request.descriptors]
    replaced = frozenset[str]().union(*(match.limit.replaces for match in matches if match is not None))
    items = tuple(
        Planned(None if match is not None and _is_replaced(match, replaced) else match, request.hits(descriptor))
        for match, descriptor in zip(matches, request.descriptors, strict=True)
    )
    return Plan(items, domain.all_or_nothing)


def judge(plan: Plan, tallies: Sequence[Tally]) -> Verdict:
    """The statuses and the overall code; `tallies` answer `plan.charges()` in order.

    A request is over its limit when a limit outside quota mode is over, or when all its quota limits are.
    """
    answers = iter(tallies)
    statuses = tuple(_status(item, next(answers) if item.is_counted else None) for item in plan.items)
    quota = [status for status in statuses if status.limit is not None and status.limit.quota_mode]
    others = [status for status in statuses if status.limit is None or not status.limit.quota_mode]
    is_over = any(map(_is_over, others)) or (bool(quota) and all(map(_is_over, quota)))
    return Verdict(Code.OVER_LIMIT if is_over else Code.OK, statuses)


def _charges(items: Iterable[Planned]) -> Iterator[Charge]:
    for item in items:
        if item.match is not None and item.is_counted:
            limit = item.match.limit
            yield Charge(
                key=item.match.counter_key,
                limit=limit.requests_per_unit,
                window_seconds=limit.window_seconds,
                hits=item.hits,
                is_enforced=not limit.shadow_mode,
            )


def _match(domain: Domain, descriptor: Descriptor) -> Match | None:
    if descriptor.limit is not None:
        return domain.override(descriptor.entries, descriptor.limit)
    return domain.match(descriptor.entries)


def _is_replaced(match: Match, replaced: frozenset[str]) -> bool:
    return match.limit.name in replaced and not match.limit.unlimited


def _status(item: Planned, tally: Tally | None) -> Status:
    if item.match is None:
        return Status(hits=item.hits)
    if tally is None:
        return Status(remaining=UINT32_MAX, hits=item.hits)
    limit = item.match.limit
    return Status(
        code=Code.OVER_LIMIT if tally.is_over and not limit.shadow_mode else Code.OK,
        limit=limit,
        remaining=max(0, limit.requests_per_unit - tally.count),
        reset_seconds=tally.reset_seconds,
        hits=item.hits,
    )


def _is_over(status: Status) -> bool:
    return status.code is Code.OVER_LIMIT
