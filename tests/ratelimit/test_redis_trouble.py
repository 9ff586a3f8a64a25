"""What a Redis that dies, stalls or comes back under load costs: the calls in flight at that moment, and no others."""

import asyncio
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from headgate.policy.model import OnStoreFailure
from headgate.redis.connection import connect
from headgate.redis.settings import RedisSettings
from ratelimit.charges import Charge
from ratelimit.guarded import GuardedStore
from ratelimit.memory import MemoryStore
from ratelimit.redis_store import RedisStore

PATIENCE_SECONDS = 30.0
CALLERS = 16
CHARGE = Charge(key="k", limit=1_000_000, window_seconds=365 * 86_400, hits=1)


@dataclass
class Load:
    """Callers that ask without a pause, and what became of their charges.

    Attributes:
        counted: answered by Redis.
        instead: answered by the policy.
    """

    store: GuardedStore
    policy: OnStoreFailure
    counted: int = 0
    instead: int = 0
    refused_instead: int = 0
    tasks: list[asyncio.Task[None]] = field(default_factory=list)

    def __enter__(self) -> "Load":
        self.tasks = [asyncio.create_task(self._ask()) for _ in range(CALLERS)]
        return self

    def __exit__(self, *_: object) -> None:
        for task in self.tasks:
            task.cancel()

    async def until(self, is_enough: Callable[[], bool]) -> None:
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not is_enough():  # noqa: ASYNC110  (counts in many tasks; no one event says so)
                await asyncio.sleep(0.002)

    async def _ask(self) -> None:
        charge = replace(CHARGE, on_store_failure=self.policy, local_share=0.0001)
        while True:
            (tally,) = await self.store.charge([charge])
            if tally.is_substitute:
                self.instead += 1
                self.refused_instead += tally.is_over
            else:
                self.counted += 1
            await asyncio.sleep(0)


@pytest.fixture
async def store(redis_server: Any, tmp_path: Path) -> AsyncIterator[GuardedStore]:
    """In front of a Redis that writes everything down before it answers."""
    redis_server.options = ("--appendonly", "yes", "--appendfsync", "always", "--dir", str(tmp_path))
    redis_server.start()
    remote = RedisStore(connect(RedisSettings(addresses=(("127.0.0.1", redis_server.port),))), clock=lambda: 1e6)
    found = GuardedStore(remote, MemoryStore(lambda: 1e6), deadline_seconds=0.2)
    yield found
    await found.close()


async def killed(server: Any, load: Load) -> None:
    """kill -9, and a start with everything it has written down."""
    server.kill()
    await load.until(lambda: load.instead >= 500)
    server.start()


async def stalled(server: Any, load: Load) -> None:
    """Alive and silent, with its connections open; what was sent to it is still read afterwards."""
    server.process.send_signal(signal.SIGSTOP)
    await load.until(lambda: load.instead >= 500)
    server.process.send_signal(signal.SIGCONT)


@pytest.mark.parametrize("trouble", [killed, stalled])
@pytest.mark.parametrize("policy", OnStoreFailure)
async def test_every_answered_charge_is_kept_once_and_only_those_in_flight_are_in_doubt(
    store: GuardedStore,
    redis_server: Any,
    trouble: Callable[[Any, Load], Awaitable[None]],
    policy: OnStoreFailure,
) -> None:
    with Load(store, policy) as load:
        await load.until(lambda: load.counted >= 300)
        await trouble(redis_server, load)
        before = load.counted
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not store.is_answering:
                await store.probe()
                await asyncio.sleep(0.02)
        await load.until(lambda: load.counted >= before + 300)
    await asyncio.gather(*load.tasks, return_exceptions=True)

    (tally,) = await store.charge([replace(CHARGE, hits=0)])
    # At most each caller's call when the trouble began, those that found out, and those ended with the test.
    assert load.counted <= tally.count <= load.counted + 3 * CALLERS
    match policy:
        case OnStoreFailure.OPEN:
            assert load.refused_instead == 0
        case OnStoreFailure.CLOSED:
            assert load.refused_instead == load.instead
        case OnStoreFailure.LOCAL:
            # This process's share of the limit is 100.
            assert load.instead - load.refused_instead == 100
