"""The values of rate limiting: what Envoy asks, what a limit says, what is answered.

The words are those of Envoy's rate limit API. Knows no configuration file, no protobuf, no counter and no clock.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from headgate.policy.model import OnStoreFailure

Json = None | bool | int | float | str | list["Json"] | dict[str, "Json"]

UINT32_MAX = 2**32 - 1
"""The largest number the API's limits and remainders can carry; as a remainder it means "unlimited"."""


class Unit(StrEnum):
    """The length of a fixed window. A month has 30 days and a year 365, as in the reference."""

    SECOND = "second"
    MINUTE = "minute"
    HOUR = "hour"
    DAY = "day"
    WEEK = "week"
    MONTH = "month"
    YEAR = "year"

    @property
    def seconds(self) -> int:
        """The window's length."""
        return _SECONDS[self]


_SECONDS = {
    Unit.SECOND: 1,
    Unit.MINUTE: 60,
    Unit.HOUR: 3600,
    Unit.DAY: 86_400,
    Unit.WEEK: 7 * 86_400,
    Unit.MONTH: 30 * 86_400,
    Unit.YEAR: 365 * 86_400,
}


def unit_of(window_seconds: int) -> tuple[Unit, int]:
    """The longest unit, and how many of it, that make a window of this length."""
    unit = max((unit for unit in Unit if window_seconds % unit.seconds == 0), key=lambda unit: unit.seconds)
    return unit, window_seconds // unit.seconds


class Code(StrEnum):
    """The answer to a request, and to each of its descriptors."""

    OK = "OK"
    OVER_LIMIT = "OVER_LIMIT"


class Algorithm(StrEnum):
    """How a limit counts; everything but the fixed window is an addition to the reference."""

    FIXED_WINDOW = "fixed_window"
    SLIDING_WINDOW = "sliding_window"
    TOKEN_BUCKET = "token_bucket"  # noqa: S105  (no password)
    CONCURRENCY = "concurrency"


class Entry(NamedTuple):
    """One key and value of a descriptor."""

    key: str
    value: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """How much may pass per window.

    Attributes:
        requests_per_unit: 0 lets nothing pass.
        unit: not used when `unlimited`.
        unit_multiplier: a window is this many units long; at least 1.
        unlimited: nothing is counted.
        name: what other limits of the same request name in their `replaces`.
        replaces: names of limits that do not count in a request which matches this one.
        shadow_mode: counted, and answered with OK whatever the count.
        quota_mode: refuses a request only when all its quota limits are over.
        algorithm: for `CONCURRENCY`, `requests_per_unit` is how many may be in flight, and there is no window.
        burst: of a token bucket: how much fits in it; 0 for as much as flows in per window.
        counts_rejected: whether refused hits use the limit up. Token buckets and concurrency never do that.
        lease_seconds: of a concurrency limit: after this a request that was never released no longer counts.
        on_store_failure: what holds while the store is out of reach; None fails the call, as the reference does.
        local_share: the part of the limit each process grants by itself while the policy is `LOCAL`; None for the
            process's setting.
    """

    requests_per_unit: int = 0
    unit: Unit = Unit.SECOND
    unit_multiplier: int = 1
    unlimited: bool = False
    name: str = ""
    replaces: frozenset[str] = frozenset()
    shadow_mode: bool = False
    quota_mode: bool = False
    algorithm: Algorithm = Algorithm.FIXED_WINDOW
    burst: int = 0
    counts_rejected: bool = True
    lease_seconds: int = 0
    on_store_failure: OnStoreFailure | None = None
    local_share: float | None = None

    @property
    def capacity(self) -> int:
        """How much can be taken at once when nothing has been."""
        return self.burst or self.requests_per_unit

    @property
    def window_seconds(self) -> int:
        """The length of a window."""
        return self.unit.seconds * self.unit_multiplier


@dataclass(frozen=True, slots=True, kw_only=True)
class Descriptor:
    """One thing a request is counted as.

    Attributes:
        hits_addend: None leaves the number to the request; 0 asks without counting.
        is_negative_hits: give the hits back instead of taking them.
        limit: what the caller brings along in place of the configured limit; plain, without name or modes.
    """

    entries: tuple[Entry, ...]
    hits_addend: int | None = None
    is_negative_hits: bool = False
    limit: Limit | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RateLimitRequest:
    """One ShouldRateLimit call. A `hits_addend` of 0 means 1, as protobuf cannot tell it from an absent one."""

    domain: str
    descriptors: tuple[Descriptor, ...]
    hits_addend: int = 0

    def hits(self, descriptor: Descriptor) -> int:
        """How much this request adds to one descriptor's count; negative for a refund."""
        hits = max(1, self.hits_addend) if descriptor.hits_addend is None else descriptor.hits_addend
        return -hits if descriptor.is_negative_hits else hits


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """The answer to one descriptor.

    Attributes:
        limit: None when no counted limit matched.
        remaining: what the window still has room for after this request.
        reset_seconds: until the window ends; None when nothing is counted.
        hits: what this request asked for.
    """

    code: Code = Code.OK
    limit: Limit | None = None
    remaining: int = 0
    reset_seconds: float | None = None
    hits: int = 0

    @property
    def is_over(self) -> bool:
        """Whether this descriptor refuses."""
        return self.code is Code.OVER_LIMIT

    @property
    def reset_whole_seconds(self) -> int | None:
        """`reset_seconds` rounded up, as the API tells it."""
        return None if self.reset_seconds is None else math.ceil(self.reset_seconds)


@dataclass(frozen=True, slots=True)
class Verdict:
    """The answer to a request: one status per descriptor, in the request's order.

    Attributes:
        is_shadowed: the code would be another one without the process's shadow mode.
    """

    code: Code
    statuses: tuple[Status, ...]
    is_shadowed: bool = False
