"""The store in memory: all counters of one process.

Every call is one step of the event loop, so a request's charges take effect together. Not thread-safe.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import inf
from typing import Any, Protocol

from ratelimit.bucket import BucketStep
from ratelimit.charges import Charge, Charging, Tally, kept
from ratelimit.generations import Garbage, Generations
from ratelimit.leases import LeaseStep
from ratelimit.limits import Algorithm
from ratelimit.windows import MICROSECONDS, FixedStep, SlidingStep

MAX_KEYS = 4_000_000
"""Per algorithm and window length; see `Generations`."""


class _Step(Protocol):
    attempted: int
    is_over: bool

    def apply(self, hits: int) -> None: ...

    def undo(self) -> None: ...

    def count(self) -> int: ...

    def reset_seconds(self) -> float | None: ...


class MemoryStore:
    """Counts per (algorithm, window length, key). What ended is freed a few keys per charge, never all at once.

    Args:
        clock: returns unix seconds.
    """

    def __init__(self, clock: Callable[[], float], max_keys: int = MAX_KEYS) -> None:
        self._clock = clock
        self._max_keys = max_keys
        self._tables: dict[tuple[Algorithm, int], Generations[Any]] = {}
        self._garbage = Garbage()
        self._next_end: float = inf

    def __len__(self) -> int:
        """Keys in memory, those of ended windows that are still to be freed included."""
        return sum(map(len, self._tables.values())) + len(self._garbage)

    async def charge(self, charges: Sequence[Charge], charging: Charging = Charging.EACH) -> tuple[Tally, ...]:
        """See `Store`; never raises."""
        return self.charge_now(charges, charging)

    async def close(self) -> None:
        """Nothing to let go of."""

    def charge_now(self, charges: Sequence[Charge], charging: Charging = Charging.EACH) -> tuple[Tally, ...]:
        """`charge` for callers that cannot wait."""
        now = int(self._clock() * MICROSECONDS)
        self._forget(now, at_most=2 * len(charges))
        steps: list[_Step] = []
        tallies: list[Tally] = []
        for charge in charges:
            step = self._step(charge, now)
            steps.append(step)
            counts = not step.is_over or (charge.counts_rejected and not charge.is_bounded)
            tallies.append(_taken(step, charge.hits if counts else 0))
        if not any(tally.is_over for tally in tallies):
            return tuple(tallies)
        return _settled(charges, steps, charging)

    def forget(self, at_most: int) -> int:
        """Free up to this many keys of ended windows; returns how many were freed."""
        return self._forget(int(self._clock() * MICROSECONDS), at_most=at_most)

    def _forget(self, now: int, at_most: int) -> int:
        if now >= self._next_end:
            for key, table in list(self._tables.items()):
                self._turn(table, key[0], now)
                if not len(table):
                    del self._tables[key]
            self._next_end = min((table.end for table in self._tables.values()), default=inf)
        return self._garbage.free(at_most)

    def _turn(self, table: Generations[Any], algorithm: Algorithm, now: int) -> None:
        table.turn(now)
        if algorithm is Algorithm.FIXED_WINDOW:
            table.forget_previous()

    def _table(self, algorithm: Algorithm, period_seconds: int, now: int) -> Generations[Any]:
        table = self._tables.get((algorithm, period_seconds))
        if table is None:
            table = Generations(period_seconds * MICROSECONDS, now, self._garbage, self._max_keys)
            self._tables[algorithm, period_seconds] = table
            self._next_end = min(self._next_end, table.end)
        else:
            self._turn(table, algorithm, now)
        return table

    def _step(self, charge: Charge, now: int) -> _Step:
        match charge.algorithm:
            case Algorithm.FIXED_WINDOW:
                return FixedStep(charge, self._table(charge.algorithm, charge.window_seconds, now), now)
            case Algorithm.SLIDING_WINDOW:
                return SlidingStep(charge, self._table(charge.algorithm, charge.window_seconds, now), now)
            case Algorithm.TOKEN_BUCKET:
                return BucketStep(charge, self._table(charge.algorithm, _seconds_to_fill(charge), now), now)
            case Algorithm.CONCURRENCY:
                return LeaseStep(charge, self._table(charge.algorithm, charge.window_seconds, now), now)


def _taken(step: _Step, hits: int) -> Tally:
    step.apply(hits)
    return Tally(step.is_over, step.count(), step.attempted, step.reset_seconds())


def _settled(charges: Sequence[Charge], steps: Sequence[_Step], charging: Charging) -> tuple[Tally, ...]:
    """Take everything back and apply what stays when some charge is over."""
    stays = kept(charges, [step.is_over for step in steps], charging)
    for step in reversed(steps):
        step.undo()
    return tuple(
        _taken(step, charge.hits if stay else 0) for charge, step, stay in zip(charges, steps, stays, strict=True)
    )


def _seconds_to_fill(charge: Charge) -> int:
    """How long an empty bucket takes to fill: after that a key says nothing any more."""
    if not charge.limit:
        return charge.window_seconds
    return max(1, -(-charge.window_seconds * charge.capacity // charge.limit))
