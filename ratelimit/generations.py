"""State per key that is forgotten by generations: swapped out whole, freed a few keys at a time.

Knows no algorithm: values are what the steps put in. `now` is in microseconds of unix time.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import Generic, TypeVar

LONGEST_KEY = 200
"""Longer keys are kept as digests: a client's header decides how long a key is, not how much memory it takes."""
_SHARED_KEYS = 4096

Value = TypeVar("Value")


class Garbage:
    """What nobody needs any more, freed bit by bit so that no request pays for a million others."""

    def __init__(self) -> None:
        self._heaps: list[dict[str, object]] = []

    def __len__(self) -> int:
        return sum(map(len, self._heaps))

    def add(self, heap: dict[str, object]) -> None:
        """Take a whole generation."""
        if heap:
            self._heaps.append(heap)

    def free(self, at_most: int) -> int:
        """Free up to this many keys; returns how many were freed."""
        freed = 0
        while self._heaps and freed < at_most:
            heap = self._heaps[-1]
            while heap and freed < at_most:
                heap.popitem()
                freed += 1
            if not heap:
                self._heaps.pop()
        return freed


class Generations(Generic[Value]):
    """The present and the previous generation of one period's keys.

    A generation lasts one period, aligned to the unix epoch. Past `max_keys` new keys share a fixed number of
    cells: strangers then share budgets, but nobody gains one and memory stays bounded.
    """

    __slots__ = ("_garbage", "_max_keys", "current", "end", "period", "previous", "shared_total", "start")

    def __init__(self, period: int, now: int, garbage: Garbage, max_keys: int) -> None:
        self.period = period
        self.start = now // period * period
        self.end = self.start + period
        self.current: dict[str, Value] = {}
        self.previous: dict[str, Value] = {}
        self.shared_total = 0
        self._garbage = garbage
        self._max_keys = max_keys

    def __len__(self) -> int:
        return len(self.current) + len(self.previous)

    def turn(self, now: int) -> None:
        """Begin the generation `now` belongs to.

        A clock set back by less than a period stays where it was: a second budget would be a gift.
        """
        if self.start - self.period <= now < self.end:
            return
        self._drop(self.previous)
        if self.end <= now < self.end + self.period:
            self.previous = self.current
        else:
            self._drop(self.current)
            self.previous = {}
        self.current = {}
        self.start = now // self.period * self.period
        self.end = self.start + self.period

    def forget_previous(self) -> None:
        """Free the previous generation now."""
        self._drop(self.previous)
        self.previous = {}

    def name(self, key: str) -> str:
        """The name a key is kept under."""
        if len(key) > LONGEST_KEY:
            key = blake2b(key.encode("utf-8", "surrogatepass"), digest_size=24).hexdigest()
        if len(self) < self._max_keys or key in self.current or key in self.previous:
            return key
        self.shared_total += 1
        return f"\x00{hash(key) % _SHARED_KEYS}"

    def _drop(self, heap: dict[str, Value]) -> None:
        self._garbage.add(heap)  # type: ignore[arg-type]  # Garbage never looks at values
