"""The way to the script: one call at a time, a deadline for each, and a breaker. Nothing is sent twice.

A call that got no answer may have been carried out or not. The next one settles that: it has a higher number, and the
script looks at no lower one any more.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from hashlib import sha1
from pathlib import Path
from typing import Any

import msgspec
from redis.exceptions import NoScriptError, RedisError

from headgate.errors import StoreUnavailable
from headgate.logs import FIELDS
from headgate.redis.breaker import Breaker
from headgate.redis.connection import Client
from headgate.store.redis.call import Call, Reply, read_reply

CHANNEL = "{headgate}:news"
_NAMES = ("leases", "held", "counts", "means", "sidecars", "calls", "waiting", "birth", "recovery", "claims:")
# The braces are a hash tag: in a Redis Cluster all of it is in one slot, because one step has to see all of it.
_KEYS = tuple("{headgate}:" + name for name in _NAMES)
_SCRIPT = (Path(__file__).parent / "step.lua").read_text()
_DIGEST = sha1(_SCRIPT.encode(), usedforsecurity=False).hexdigest()
_log = logging.getLogger("headgate.store")

Observe = Callable[[float, str], None]
"""Told of every call: seconds, and `answered`, `timeout` or `error`."""


class Link:
    """Calls to one Redis.

    Args:
        clock: seconds, monotonic.
    """

    def __init__(self, client: Client, clock: Callable[[], float], deadline_seconds: float, observe: Observe) -> None:
        self._client: Any = client
        self._clock = clock
        self._deadline_seconds = deadline_seconds
        self._observe = observe
        self._breaker = Breaker()

    @property
    def is_closed(self) -> bool:
        """Whether the last answers were good enough (the breaker's word: calls go through)."""
        return self._breaker.is_closed

    def admits(self) -> bool:
        """Whether to call now; while the breaker is open, one call per pause."""
        return self._breaker.admits(self._clock())

    def forgive(self) -> None:
        """Redis was reached by another way."""
        self._breaker.succeeded()

    async def send(self, call: Call) -> Reply:
        """Have the script carry out a call.

        Raises:
            StoreUnavailable: no answer by the deadline.
        """
        started_at = self._clock()
        try:
            async with asyncio.timeout(self._deadline_seconds):
                reply = read_reply(await self._evaluate(msgspec.json.encode(call)))
            if reply is None:
                raise StoreUnavailable("a later call was answered before")
        except (RedisError, OSError, StoreUnavailable) as error:
            # TimeoutError is an OSError.
            self._failed(error, started_at)
            raise StoreUnavailable(str(error) or type(error).__name__) from error
        self._observe(self._clock() - started_at, "answered")
        if not self._breaker.is_closed:
            _log.info("the store answers again")
        self._breaker.succeeded()
        return reply

    async def _evaluate(self, call: bytes) -> list[Any]:
        try:
            answer: list[Any] = await self._client.evalsha(_DIGEST, len(_KEYS), *_KEYS, call, CHANNEL)
        except NoScriptError:
            # What Redis answers with NOSCRIPT has not been carried out.
            answer = await self._client.eval(_SCRIPT, len(_KEYS), *_KEYS, call, CHANNEL)
        return answer

    def _failed(self, error: Exception, started_at: float) -> None:
        now = self._clock()
        self._observe(now - started_at, "timeout" if isinstance(error, TimeoutError) else "error")
        was_closed = self._breaker.is_closed
        self._breaker.failed(now)
        if was_closed and not self._breaker.is_closed:
            _log.error("the store gives no answer", extra={FIELDS: {"error": str(error) or type(error).__name__}})
