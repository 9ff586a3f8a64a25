"""Stores over a real Redis: each is one sidecar's."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
import redis.asyncio

from headgate.policy.model import OnStoreFailure
from headgate.redis.connection import connect
from headgate.redis.settings import RedisSettings
from headgate.store.redis.store import RedisStore

StartSidecar = Callable[..., Awaitable[RedisStore]]
PATIENCE_SECONDS = 20.0


def redis_store(port: int, **options: Any) -> RedisStore:
    """A store that is not started yet."""
    settings = RedisSettings(addresses=(("127.0.0.1", port),), connect_seconds=1.0)
    policy = options.pop("on_failure", OnStoreFailure.CLOSED)
    given = {"clock": time.monotonic, "ageing_seconds": 20.0, "deadline_seconds": 2.0} | options
    return RedisStore(connect(settings), on_failure=lambda: policy, **given)


@pytest.fixture
def new_store() -> Callable[..., RedisStore]:
    return redis_store


@pytest.fixture
async def sidecar(redis_port: int, redis_is_empty: None) -> AsyncIterator[StartSidecar]:
    """Start a store as a sidecar would; `port` for another Redis than the one of all tests."""
    started: list[RedisStore] = []

    async def start(port: int = redis_port, **options: Any) -> RedisStore:
        store = redis_store(port, **options)
        started.append(store)
        await store.start()
        async with asyncio.timeout(PATIENCE_SECONDS):
            while True:
                if store.is_answering:
                    return store
                await asyncio.sleep(0.005)

    yield start
    for store in started:
        await store.stop()


@pytest.fixture
async def ledger(redis_port: int, redis_is_empty: None) -> AsyncIterator[RedisLedger]:
    """What the Redis of all tests has written down."""
    async with redis.asyncio.Redis(port=redis_port, decode_responses=True) as client:
        yield RedisLedger(client)


class RedisLedger:
    """A look into Redis, past the stores."""

    def __init__(self, client: Any) -> None:
        self.client = client

    async def leases(self) -> int:
        return int(await self.client.zcard("{headgate}:leases"))

    async def count(self, field: str) -> int:
        return int(await self.client.hget("{headgate}:counts", field) or 0)

    async def is_empty(self) -> bool:
        keys = ("{headgate}:leases", "{headgate}:held", "{headgate}:counts")
        return not await self.client.exists(*keys)

    async def calls(self) -> int:
        """How many calls of the script Redis has carried out."""
        commands = await self.client.info("commandstats")
        return sum(int(commands.get(f"cmdstat_{name}", {"calls": 0})["calls"]) for name in ("evalsha", "eval"))
