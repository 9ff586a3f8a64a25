"""News of releases at other sidecars, by Redis's pub/sub: connects, listens, connects again.

Whoever misses news because of a lost connection is told when there is one again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from redis.exceptions import RedisError

from headgate.redis.connection import Client

_RETRY_SECONDS = 0.2
_ANSWER_SECONDS = 1.0
_SILENCE_SECONDS = 2.0


class News:
    """One subscription, from start to stop.

    Args:
        heard: told the payload of each message.
        connected: told whenever there is a subscription, the first or a new one.
    """

    def __init__(
        self, client: Client, channel: str, heard: Callable[[bytes], None], connected: Callable[[], None]
    ) -> None:
        self._client: Any = client
        self._channel = channel
        self._heard = heard
        self._connected = connected
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin."""
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def stop(self) -> None:
        """End."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def _run(self) -> None:
        while True:
            try:
                await self._listen()
            except (RedisError, OSError, KeyError):
                # KeyError: redis-py's cluster has just lost the node of the channel's slot.
                await asyncio.sleep(_RETRY_SECONDS)

    async def _listen(self) -> None:
        subscription = self._client.pubsub()
        try:
            async with asyncio.timeout(_ANSWER_SECONDS):
                # A cluster's client knows no node before.
                await self._client.initialize()
                await subscription.subscribe(self._channel)
                while (await subscription.get_message(timeout=_ANSWER_SECONDS) or {}).get("type") != "subscribe":
                    pass
            self._connected()
            while True:
                await self._next(subscription)
        finally:
            await subscription.aclose()

    async def _next(self, subscription: Any) -> None:
        message = await subscription.get_message(timeout=_SILENCE_SECONDS)
        if message is None:
            # Silence, or a connection that is dead without having said so.
            async with asyncio.timeout(_ANSWER_SECONDS):
                await subscription.ping()
                while message is None:
                    message = await subscription.get_message(timeout=_ANSWER_SECONDS)
        if message["type"] == "message":
            self._heard(message["data"])
