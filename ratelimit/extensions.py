"""The `headgate:` block of a descriptor: what the reference does not have. A file without it stays valid there.

Reports what is wrong like `document`; knows nothing of domains and matching.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from headgate.policy.model import OnStoreFailure
from ratelimit.document import Value
from ratelimit.durations import parse_duration
from ratelimit.limits import Algorithm, Unit

_KEYS = frozenset(
    ("algorithm", "burst", "count_rejected", "lease", "local_share", "max_in_flight", "on_store_failure", "window")
)
_DOMAIN_KEYS = frozenset(("all_or_nothing",))
_DEFAULT_LEASE_SECONDS = 600
_LONGEST_SECONDS = 100 * Unit.YEAR.seconds
_WINDOW_ALGORITHMS = (Algorithm.FIXED_WINDOW, Algorithm.SLIDING_WINDOW, Algorithm.TOKEN_BUCKET)

Chosen = TypeVar("Chosen")


@dataclass(frozen=True, slots=True, kw_only=True)
class Extensions:
    """What a block says. `values` holds the fields of `Limit` that it sets for any algorithm."""

    block: Value
    algorithm: Algorithm = Algorithm.FIXED_WINDOW
    window_seconds: int = 0
    burst: int = 0
    max_in_flight: int = 0
    lease_seconds: int = _DEFAULT_LEASE_SECONDS
    counts_rejected: bool = True
    on_failure: Mapping[str, Any] = field(default_factory=dict)

    def of_concurrency(self) -> dict[str, Any]:
        """A concurrency limit's fields."""
        return {
            "algorithm": Algorithm.CONCURRENCY,
            "requests_per_unit": self.max_in_flight,
            "lease_seconds": self.lease_seconds,
            "counts_rejected": False,
            **self.on_failure,
        }

    def of_window(self) -> dict[str, Any]:
        """Any other limit's fields."""
        return {
            "algorithm": self.algorithm,
            "burst": self.burst,
            "counts_rejected": self.counts_rejected,
            **self.on_failure,
        }

    def report_unused(self) -> None:
        """A block without any limit to change is a mistake."""
        if not self.block.is_null:
            self.block.report("headgate needs a rate_limit, or max_in_flight")

    def check(self, requests_per_unit: int, *, unlimited: bool) -> None:
        """Report what does not go with the limit itself."""
        if unlimited and not self.block.is_null:
            self.block.report("should not specify headgate when unlimited")
        if self.burst and not requests_per_unit:
            self.block.field("burst").report("burst needs requests_per_unit of at least 1")


def read_extensions(block: Value) -> Extensions:
    """A descriptor's block; one that is not there changes nothing."""
    if block.is_null:
        return Extensions(block=block)
    _expect_keys(block, _KEYS)
    in_flight = block.field("max_in_flight")
    algorithm = Algorithm.CONCURRENCY if not in_flight.is_null else _algorithm(block)
    _expect_fitting(block, algorithm)
    counts_rejected = block.field("count_rejected")
    return Extensions(
        block=block,
        algorithm=algorithm,
        window_seconds=_seconds(block.field("window"), 0),
        burst=block.field("burst").count(),
        max_in_flight=in_flight.count(),
        lease_seconds=_seconds(block.field("lease"), _DEFAULT_LEASE_SECONDS),
        counts_rejected=algorithm is Algorithm.FIXED_WINDOW if counts_rejected.is_null else counts_rejected.flag(),
        on_failure=_on_failure(block),
    )


def read_all_or_nothing(block: Value) -> bool:
    """The block of a whole file: whether a refused request costs nothing at all."""
    if block.is_null:
        return False
    _expect_keys(block, _DOMAIN_KEYS)
    return block.field("all_or_nothing").flag()


def _algorithm(block: Value) -> Algorithm:
    return _choice(block.field("algorithm"), _WINDOW_ALGORITHMS) or Algorithm.FIXED_WINDOW


def _on_failure(block: Value) -> dict[str, Any]:
    policy = _choice(block.field("on_store_failure"), tuple(OnStoreFailure))
    share = block.field("local_share")
    if share.is_null:
        return {"on_store_failure": policy}
    part = share.number()
    if not 0.0 < part <= 1.0:
        share.report(f"local_share has to be above 0 and at most 1, not '{share.text()}'")
    return {"on_store_failure": policy, "local_share": part}


def _expect_keys(block: Value, known: frozenset[str]) -> None:
    block.expect_map("headgate")
    for key, value in block.keys():  # noqa: SIM118  (not a dict)
        if key not in known:
            value.report(f"config error, unknown key '{key}' in headgate; known are {', '.join(sorted(known))}")


def _expect_fitting(block: Value, algorithm: Algorithm) -> None:
    misplaced = {
        Algorithm.FIXED_WINDOW: ("burst", "lease"),
        Algorithm.SLIDING_WINDOW: ("burst", "lease"),
        Algorithm.TOKEN_BUCKET: ("count_rejected", "lease"),
        Algorithm.CONCURRENCY: ("algorithm", "burst", "count_rejected", "window"),
    }
    for key in misplaced[algorithm]:
        value = block.field(key)
        if not value.is_null:
            value.report(f"{key} means nothing for {algorithm}")


def _choice(value: Value, choices: tuple[Chosen, ...]) -> Chosen | None:
    text = value.text()
    if not text:
        return None
    found = next((choice for choice in choices if str(choice) == text), None)
    if found is None:
        value.report(f"has to be {', '.join(map(str, choices))}, not '{text}'")
    return found


def _seconds(value: Value, default: int) -> int:
    if value.is_null:
        return default
    return _checked(value, parse_duration) or default


def _checked(value: Value, parse: Callable[[str], float]) -> int:
    text = value.text()
    try:
        seconds = parse(text)
    except ValueError as error:
        value.report(str(error))
        return 0
    if seconds != int(seconds) or not 1 <= seconds <= _LONGEST_SECONDS:
        value.report(f"has to be whole seconds, at least 1s, not '{text}'")
        return 0
    return int(seconds)
