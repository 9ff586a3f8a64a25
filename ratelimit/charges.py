"""What a store is asked and what it answers: the charges of one request, in one step, and their tallies.

The rule for which charges stay when some are over lives here, once. Implementations: `memory`, `redis_store`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from headgate.policy.model import OnStoreFailure
from ratelimit.limits import Algorithm

COUNT_MAX = 2**53 - 1
"""Where every count stops growing: the largest whole number that Redis's Lua knows exactly."""


class Role(StrEnum):
    """What it means for the request that a charge is over."""

    ENFORCED = "enforced"
    QUOTA = "quota"
    ADVISORY = "advisory"


class Charging(StrEnum):
    """Which charges of a request stay when one of them is over.

    Attributes:
        EACH: all of them; the reference's way.
        SPARE_OTHERS: only those that are over; the reference's STOP_CACHE_KEY_INCREMENT_WHEN_OVERLIMIT.
        ALL_OR_NOTHING: none, when the request is refused.
    """

    EACH = "each"
    SPARE_OTHERS = "spare_others"
    ALL_OR_NOTHING = "all_or_nothing"


@dataclass(frozen=True, slots=True, kw_only=True)
class Charge:
    """Hits for one counter.

    Attributes:
        limit: per window; of a concurrency limit, how many may be in flight.
        window_seconds: of a concurrency limit, how long a lease holds.
        hits: 0 only asks, negative hits are given back (a count never falls below 0). A concurrency limit takes
            one lease for any positive number and releases it for any negative one.
        burst: of a token bucket: how much fits in it.
        lease_id: whose lease it is.
        window_start: unix seconds; of a fixed window, the only one this is for: it changes no other, also when that
            one has passed. None for the one that runs.
    """

    key: str
    limit: int
    window_seconds: int
    hits: int
    role: Role = Role.ENFORCED
    algorithm: Algorithm = Algorithm.FIXED_WINDOW
    burst: int = 0
    counts_rejected: bool = True
    lease_id: str = ""
    on_store_failure: OnStoreFailure | None = None
    local_share: float | None = None
    window_start: int | None = None

    @property
    def capacity(self) -> int:
        """How much can be taken at once when nothing has been."""
        return self.burst or self.limit

    @property
    def is_bounded(self) -> bool:
        """Whether the state can never pass the limit, so that a refused charge cannot stay."""
        return self.algorithm in (Algorithm.TOKEN_BUCKET, Algorithm.CONCURRENCY)


@dataclass(frozen=True, slots=True)
class Tally:
    """What became of one charge.

    Attributes:
        count: where the count stands now.
        attempted: where it would stand with the hits, whether they stayed or not.
        reset_seconds: until the window ends or, for a bucket or sliding window that is over, until the same hits
            would pass; None when nobody can tell.
        is_cached: the store was not asked.
        is_substitute: the store gave no answer; this is what the limit's policy says instead.
    """

    is_over: bool
    count: int
    attempted: int
    reset_seconds: float | None
    is_cached: bool = False
    is_substitute: bool = False


class Store(Protocol):
    """Counters shared by all requests of a process, or of many processes."""

    async def charge(self, charges: Sequence[Charge], charging: Charging = Charging.EACH) -> tuple[Tally, ...]:
        """Apply all charges of a request in one step; one tally for each, in order.

        Raises:
            StoreUnavailable: no answer; the charges may have been applied or not.
        """

    async def close(self) -> None:
        """Let go of connections."""


def is_refused(charges: Sequence[Charge], over: Sequence[bool]) -> bool:
    """Whether the request fails: an enforced charge is over, or all quota charges are."""
    quota = [is_over for charge, is_over in zip(charges, over, strict=True) if charge.role is Role.QUOTA]
    enforced = (is_over for charge, is_over in zip(charges, over, strict=True) if charge.role is Role.ENFORCED)
    return any(enforced) or (bool(quota) and all(quota))


def kept(charges: Sequence[Charge], over: Sequence[bool], charging: Charging) -> list[bool]:
    """For each charge whether it stays; what is given back always does."""
    refused, any_over = is_refused(charges, over), any(over)
    return [
        charge.hits <= 0 or _stays(charge, charging, is_over=is_over, refused=refused, any_over=any_over)
        for charge, is_over in zip(charges, over, strict=True)
    ]


def _stays(charge: Charge, charging: Charging, *, is_over: bool, refused: bool, any_over: bool) -> bool:
    if is_over and (charge.is_bounded or not charge.counts_rejected):
        return False
    if refused and (charging is Charging.ALL_OR_NOTHING or charge.algorithm is Algorithm.CONCURRENCY):
        return False
    return charging is not Charging.SPARE_OTHERS or is_over or not any_over
