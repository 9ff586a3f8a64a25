"""A store in front of another that remembers which fixed windows are used up, so that nobody asks again.

The reference's local cache, with its bound in bytes. Unlike there, giving hits back or another limit for the same
key makes it ask again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from ratelimit.charges import Charge, Charging, Role, Store, Tally
from ratelimit.limits import Algorithm

_ENTRY_BYTES = 200
"""About what an entry takes besides its key."""

_Key = tuple[str, int, int]


class OverLimitCache:
    """Answers what is certain from memory and asks the store for the rest.

    Args:
        clock: returns unix seconds.
        size_bytes: about how much the remembered keys may take; the oldest go first.
    """

    def __init__(self, store: Store, clock: Callable[[], float], size_bytes: int) -> None:
        self._store = store
        self._clock = clock
        self._room = size_bytes
        self._until: dict[_Key, float] = {}

    async def charge(self, charges: Sequence[Charge], charging: Charging = Charging.EACH) -> tuple[Tally, ...]:
        """See `Store`."""
        now = self._clock()
        cached = {at: tally for at, charge in enumerate(charges) if (tally := self._find(charge, now)) is not None}
        rest = [charge for at, charge in enumerate(charges) if at not in cached]
        if cached:
            is_refused = any(charges[at].role is Role.ENFORCED for at in cached)
            rest = [_looking(charge, charging, is_refused=is_refused) for charge in rest]
        answers = iter(await self._store.charge(rest, charging) if rest else ())
        tallies = tuple(cached.get(at) or next(answers) for at in range(len(charges)))
        for charge, tally in zip(charges, tallies, strict=True):
            self._learn(charge, tally, now)
        return tallies

    async def close(self) -> None:
        """Close the store behind."""
        await self._store.close()

    def _find(self, charge: Charge, now: float) -> Tally | None:
        if charge.hits < 0:
            return None
        until = self._until.get(_key(charge), 0.0)
        return Tally(True, charge.limit, charge.limit, until - now, is_cached=True) if until > now else None

    def _learn(self, charge: Charge, tally: Tally, now: float) -> None:
        if charge.algorithm is not Algorithm.FIXED_WINDOW or tally.is_cached:
            return
        key = _key(charge)
        if charge.hits < 0:
            self._forget(key)
        elif tally.is_over and tally.count > charge.limit and tally.reset_seconds is not None:
            self._forget(key)
            self._until[key] = now + tally.reset_seconds
            self._room -= _size(key)
            while self._room < 0:
                self._forget(next(iter(self._until)))

    def _forget(self, key: _Key) -> None:
        if self._until.pop(key, None) is not None:
            self._room += _size(key)


def _key(charge: Charge) -> _Key:
    return charge.key, charge.window_seconds, charge.limit


def _size(key: _Key) -> int:
    return _ENTRY_BYTES + len(key[0])


def _looking(charge: Charge, charging: Charging, *, is_refused: bool) -> Charge:
    """A charge of a request that is refused already: it only looks where it would not stay."""
    would_stay = charging is Charging.EACH or (charging is Charging.ALL_OR_NOTHING and not is_refused)
    if charge.hits < 0 or (would_stay and not (is_refused and charge.algorithm is Algorithm.CONCURRENCY)):
        return charge
    return replace(charge, hits=0)
