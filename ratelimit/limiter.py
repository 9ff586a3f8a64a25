"""From a request to its verdict, in two pure steps around the one question to the counters.

`plan` says what to charge, `judge` what the tallies mean. Knows no protobuf, no clock and no store; semantics are
those of envoyproxy/ratelimit.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from ratelimit.charges import Charge, Charging, Role, Tally
from ratelimit.limits import UINT32_MAX, Code, Descriptor, RateLimitRequest, Status, Verdict
from ratelimit.matching import Configuration, Domain, Match

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


@dataclass(frozen=True, slots=True, kw_only=True)
class Modes:
    """What holds for all requests of a process.

    Attributes:
        shadow: every request is OK, whatever its descriptors are.
        quota: every descriptor counts as in quota mode, those without a limit too.
        charging: which charges stay when one is over.
    """

    shadow: bool = False
    quota: bool = False
    charging: Charging = Charging.EACH


NO_MODES = Modes()


@dataclass(frozen=True, slots=True)
class Planned:
    """One descriptor of a request: the limit it falls under, and how much it asks for."""

    match: Match | None
    hits: int
    role: Role = Role.ENFORCED

    @property
    def is_counted(self) -> bool:
        """Whether the counters have to be asked."""
        return self.match is not None and not self.match.limit.unlimited


@dataclass(frozen=True, slots=True)
class Plan:
    """What a request is charged, if anything: one item per descriptor, in order."""

    items: tuple[Planned, ...]
    charging: Charging = Charging.EACH
    is_known_domain: bool = True

    def charges(self) -> tuple[Charge, ...]:
        """One charge per counted item, in order."""
        return tuple(_charges(self.items))


def plan(request: RateLimitRequest, configuration: Configuration, modes: Modes = NO_MODES) -> Plan:
    """Find each descriptor's limit and leave out those that another one replaces."""
    domain = configuration.domains.get(request.domain)
    if domain is None:
        items = tuple(Planned(None, request.hits(descriptor)) for descriptor in request.descriptors)
        return Plan(items, modes.charging, is_known_domain=False)
    matches: list[Match | None] = [_match(domain, descriptor) for descriptor in request.descriptors]
    replaced = frozenset[str]().union(*(match.limit.replaces for match in matches if match is not None))
    if replaced:
        matches = [None if match is not None and _is_replaced(match, replaced) else match for match in matches]
    quota_role = Role.ADVISORY if any(_is_free_quota(match, modes) for match in matches) else Role.QUOTA
    items = tuple(
        Planned(match, request.hits(descriptor), _role(match, modes, quota_role))
        for match, descriptor in zip(matches, request.descriptors, strict=True)
    )
    return Plan(items, Charging.ALL_OR_NOTHING if domain.all_or_nothing else modes.charging)


def judge(plan: Plan, tallies: Sequence[Tally], modes: Modes = NO_MODES) -> Verdict:
    """The statuses and the overall code; `tallies` answer `plan.charges()` in order.

    A request is over its limit when a limit outside quota mode is over, or when all its quota limits are.
    """
    answers = iter(tallies)
    statuses = tuple(_status(item, next(answers) if item.is_counted else None) for item in plan.items)
    is_over = _is_over(plan, statuses, modes)
    code = Code.OVER_LIMIT if is_over and not modes.shadow else Code.OK
    return Verdict(code, statuses, is_shadowed=is_over and modes.shadow)


def is_quota(item: Planned, modes: Modes) -> bool:
    """Whether a descriptor counts as in quota mode; unlimited ones never do."""
    if item.match is None:
        return modes.quota
    return not item.match.limit.unlimited and (modes.quota or item.match.limit.quota_mode)


def _is_over(plan: Plan, statuses: Sequence[Status], modes: Modes) -> bool:
    quota: list[bool] = []
    for item, status in zip(plan.items, statuses, strict=True):
        if is_quota(item, modes):
            quota.append(status.is_over)
        elif status.is_over:
            return True
    return bool(quota) and all(quota)


def _charges(items: Iterable[Planned]) -> Iterator[Charge]:
    for item in items:
        if item.match is not None and item.is_counted:
            limit = item.match.limit
            yield Charge(
                key=item.match.counter_key,
                limit=limit.requests_per_unit,
                window_seconds=limit.lease_seconds or limit.window_seconds,
                hits=item.hits,
                role=item.role,
                algorithm=limit.algorithm,
                burst=limit.burst,
                counts_rejected=limit.counts_rejected,
                lease_id=item.match.lease_id,
                on_store_failure=limit.on_store_failure,
                local_share=limit.local_share,
            )


def _role(match: Match | None, modes: Modes, quota_role: Role) -> Role:
    if match is None or modes.shadow or match.limit.shadow_mode:
        return Role.ADVISORY
    return quota_role if modes.quota or match.limit.quota_mode else Role.ENFORCED


def _is_free_quota(match: Match | None, modes: Modes) -> bool:
    """Whether this is a quota that is never used up, so that quotas as a whole refuse nothing."""
    if match is None:
        return modes.quota
    return match.limit.shadow_mode and not match.limit.unlimited and (modes.quota or match.limit.quota_mode)


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
        remaining=max(0, limit.capacity - tally.count),
        reset_seconds=tally.reset_seconds,
        hits=item.hits,
    )
