"""The store in Redis: counters of many processes, one script call per request.

In a cluster, and with a Redis of its own for limits per second, a request's charges are one call per slot or Redis;
what one of them refuses is then given back to the others. Knows no deadline: see `guarded`.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from hashlib import sha1
from pathlib import Path
from typing import Any

import msgspec
from redis.asyncio import RedisCluster
from redis.exceptions import NoScriptError, RedisError

from headgate.errors import StoreUnavailable
from headgate.redis.connection import Client, disconnect
from ratelimit.charges import COUNT_MAX, Charge, Charging, Tally, is_refused, kept
from ratelimit.limits import Algorithm
from ratelimit.redis_keys import redis_key
from ratelimit.windows import MICROSECONDS

SCRIPT = (Path(__file__).parent / "charge.lua").read_text()
_DIGEST = sha1(SCRIPT.encode(), usedforsecurity=False).hexdigest()
_ANSWERS = 4
_SPARE_SECONDS = 60


class RedisStore:
    """Counts in one Redis or two.

    Args:
        client: for all limits, unless `per_second` is given for those with windows of one second.
        clock: unix seconds; None for Redis's own time. A cluster needs one, because a key's slot has to be known
            before Redis is asked.
        calls_at_once: at most as many as a client has connections.
        jitter_seconds: keys outlive their window by up to this, so that not all expire at once.
    """

    def __init__(
        self,
        client: Client,
        *,
        per_second: Client | None = None,
        prefix: str = "",
        jitter_seconds: int = 0,
        calls_at_once: int = 10,
        clock: Callable[[], float] | None = None,
    ) -> None:
        self._client = client
        self._per_second = per_second or client
        self._prefix = prefix
        self._jitter_seconds = jitter_seconds
        self._clock = clock
        # A client fails when all its connections are in use; here a call waits for one.
        self._room = asyncio.Semaphore(calls_at_once)

    async def charge(self, charges: Sequence[Charge], charging: Charging = Charging.EACH) -> tuple[Tally, ...]:
        """See `Store`."""
        now = self._now(charges[0])
        keys = [redis_key(charge, self._prefix, now) for charge in charges]
        groups = self._groups(charges, keys)
        if len(groups) == 1:
            return tuple(await self._call(groups[0][0], charges, keys, charging, now))
        return await self._charge_groups(groups, charges, keys, charging, now)

    async def ping(self) -> None:
        """Ask whether Redis is there.

        Raises:
            StoreUnavailable: it is not.
        """
        try:
            for client in {self._client, self._per_second}:
                async with self._room:
                    await client.ping()
        except (RedisError, OSError) as error:
            raise StoreUnavailable(str(error)) from error

    async def close(self) -> None:
        """Close all connections."""
        for client in {self._client, self._per_second}:
            await disconnect(client)

    def _now(self, first: Charge) -> int | None:
        """Microseconds; None for Redis's own time. The charges of one call are all pinned to a window, or none is."""
        if first.window_start is not None:
            return first.window_start * MICROSECONDS
        return int(self._clock() * MICROSECONDS) if self._clock else None

    def _groups(self, charges: Sequence[Charge], keys: Sequence[str]) -> list[tuple[Client, list[int]]]:
        """The indexes of charges that one call can hold, and whom to ask."""
        if self._per_second is self._client and not isinstance(self._client, RedisCluster):
            return [(self._client, list(range(len(charges))))]
        groups: dict[tuple[int, int], tuple[Client, list[int]]] = {}
        for index, (charge, key) in enumerate(zip(charges, keys, strict=True)):
            client = self._per_second if charge.window_seconds == 1 else self._client
            slot = client.keyslot(key) if isinstance(client, RedisCluster) else 0
            groups.setdefault((id(client), slot), (client, []))[1].append(index)
        return list(groups.values())

    async def _charge_groups(
        self,
        groups: Sequence[tuple[Client, list[int]]],
        charges: Sequence[Charge],
        keys: Sequence[str],
        charging: Charging,
        now: int | None,
    ) -> tuple[Tally, ...]:
        # Each call sees only its own charges, so each lets everything stay; what should not is given back below.
        asked = [
            self._call(client, [charges[at] for at in indexes], [keys[at] for at in indexes], Charging.EACH, now)
            for client, indexes in groups
        ]
        answers = await _gathered(asked)
        tallies = dict(
            pair
            for (_, indexes), answer in zip(groups, answers, strict=True)
            for pair in zip(indexes, answer, strict=True)
        )
        over = [tallies[at].is_over for at in range(len(charges))]
        excess = self._excess(charges, over, charging)
        if excess:
            refunds = [
                self._call(client, [_refund(charges[at]) for at in mine], [keys[at] for at in mine], Charging.EACH, now)
                for client, indexes in groups
                if (mine := [at for at in indexes if at in excess])
            ]
            await _gathered(refunds)
        return tuple(
            replace(tallies[at], count=max(0, tallies[at].count - charge.hits)) if at in excess else tallies[at]
            for at, charge in enumerate(charges)
        )

    def _excess(self, charges: Sequence[Charge], over: Sequence[bool], charging: Charging) -> set[int]:
        """The charges that the separate calls let stay and the request as a whole does not."""
        if not any(over):
            return set()
        wanted = kept(charges, over, charging)
        refused = is_refused(charges, over)
        return {
            at
            for at, charge in enumerate(charges)
            if charge.hits > 0
            and not wanted[at]
            and not (over[at] and (charge.is_bounded or not charge.counts_rejected))
            and (refused or charging is Charging.SPARE_OTHERS)
        }

    async def _call(
        self, client: Client, charges: Sequence[Charge], keys: Sequence[str], charging: Charging, now: int | None
    ) -> list[Tally]:
        jitter = random.randrange(self._jitter_seconds) if self._jitter_seconds else 0  # noqa: S311  (no secret)
        asked = msgspec.json.encode([_arguments(charge, jitter) for charge in charges])
        arguments: list[str | bytes] = ["" if now is None else str(now), charging, asked]
        try:
            async with self._room:
                answer = await self._evaluate(client, keys, arguments)
        except (RedisError, OSError) as error:
            raise StoreUnavailable(f"Redis: {error}") from error
        return [_tally(answer[at : at + _ANSWERS]) for at in range(0, len(answer), _ANSWERS)]

    async def _evaluate(self, client: Any, keys: Sequence[str], arguments: Sequence[str | bytes]) -> list[int]:
        try:
            answer: list[int] = await client.evalsha(_DIGEST, len(keys), *keys, *arguments)
        except NoScriptError:
            # What Redis answers with NOSCRIPT has not been applied: it may be sent again.
            answer = await client.eval(SCRIPT, len(keys), *keys, *arguments)
        return answer


def _arguments(charge: Charge, jitter: int) -> tuple[str | int, ...]:
    expiry = charge.window_seconds * (2 if charge.algorithm is Algorithm.SLIDING_WINDOW else 1) + jitter
    if charge.algorithm is Algorithm.CONCURRENCY:
        expiry += _SPARE_SECONDS
    return (
        charge.algorithm,
        charge.limit,
        charge.window_seconds,
        max(-COUNT_MAX, min(charge.hits, COUNT_MAX)),
        charge.role,
        charge.capacity,
        charge.counts_rejected,
        charge.lease_id,
        expiry,
    )


def _tally(answer: Sequence[int]) -> Tally:
    is_over, count, attempted, reset = answer
    return Tally(bool(is_over), count, attempted, None if reset < 0 else reset / MICROSECONDS)


def _refund(charge: Charge) -> Charge:
    return replace(charge, hits=-charge.hits)


async def _gathered(calls: Iterable[Any]) -> list[list[Tally]]:
    """All answers; one call that fails fails the whole, after the others have ended."""
    answers = await asyncio.gather(*calls, return_exceptions=True)
    for answer in answers:
        if isinstance(answer, BaseException):
            raise answer
    return list(answers)  # type: ignore[arg-type]  # none is an exception by now
