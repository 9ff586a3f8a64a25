"""Redis killed, stalled, cut off and failed over under load: no limit is exceeded, as counted outside the stores.

Three sidecars ask, hold and give back without a pause, each also holds two leases all the time.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import redis.asyncio

from headgate.policy.model import OnStoreFailure
from headgate.redis.connection import connect
from headgate.redis.settings import RedisSettings, RedisType
from headgate.store import Lease, LeaseRequest, Refused
from headgate.store.redis.store import RedisStore

PATIENCE_SECONDS = 6.0
LEASE_SECONDS = 15.0
SIDECARS = 3
ASKERS = 6
LIMIT = 15
"""Less than all of them ask for, and more than one sidecar can be left with when it is cut off (8) and the others hold
for long (4): those who can still ask are never without a slot they may use."""
SHARE = LIMIT // SIDECARS
REQUEST = LeaseRequest(tenant="acme", tier="premium", cluster="best", tokens=10, cluster_limit=LIMIT)
POLICIES = list(OnStoreFailure)


class Load:
    """One sidecar under load, and what it was told."""

    def __init__(self, store: RedisStore, count: Count) -> None:
        self.store = store
        self.count = count
        self.held = 0
        self.granted = 0
        self.unanswered = 0
        self.long: list[Lease] = []
        self.most_granted_at = 0
        self.is_over = False
        self.tasks: list[asyncio.Task[None]] = []

    async def hold_two(self) -> None:
        for _ in range(2):
            lease = await self.ask()
            assert isinstance(lease, Lease)
            self.long.append(lease)

    def ask_without_a_pause(self) -> None:
        self.tasks = [asyncio.create_task(self.ask_on()) for _ in range(ASKERS)]

    async def ask_on(self) -> None:
        while not self.is_over:
            answer = await self.ask()
            if isinstance(answer, Lease):
                await asyncio.sleep(random.uniform(0.001, 0.01))
                self.give_back(answer)
            # Else the one who gives back would ask first, every time.
            await asyncio.sleep(random.uniform(0.001, 0.01))

    async def ask(self) -> Lease | Refused | None:
        answered: asyncio.Future[Lease | Refused | None] = asyncio.get_running_loop().create_future()

        def answer(outcome: Lease | Refused | None) -> None:
            # Counted in the very moment.
            if isinstance(outcome, Lease):
                self.held += 1
                self.granted += 1
                self.most_granted_at = max(self.most_granted_at, self.held)
                self.count.take()
            answered.set_result(outcome)

        self.store.acquire(REQUEST, answer)
        outcome = await answered
        self.unanswered += outcome is None
        return outcome

    def give_back(self, lease: Lease) -> None:
        self.held -= 1
        self.count.give_back()
        self.store.release(lease)

    async def end(self) -> None:
        self.is_over = True
        await asyncio.gather(*self.tasks)


class Count:
    """All that run at one time, as the upstream would count them."""

    def __init__(self) -> None:
        self.running = 0
        self.most = 0

    def take(self) -> None:
        self.running += 1
        self.most = max(self.most, self.running)

    def give_back(self) -> None:
        self.running -= 1


class Proxy:
    """Stands between the sidecars and Redis; cut, it lets nothing through and says so to nobody."""

    def __init__(self) -> None:
        self.target = 0
        self.port = 0
        self.is_cut = False
        self.tasks: set[asyncio.Task[None]] = set()

    async def relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there_reader, there_writer = await asyncio.open_connection("127.0.0.1", self.target)
        try:
            await asyncio.gather(self.pump(reader, there_writer), self.pump(there_reader, writer))
        except OSError:
            pass
        finally:
            writer.close()
            there_writer.close()

    async def pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            if not self.is_cut:
                writer.write(data)
        writer.close()


@asynccontextmanager
async def proxy(target: int) -> AsyncIterator[Proxy]:
    between = Proxy()
    between.target = target
    server = await asyncio.start_server(between.relay, "127.0.0.1", 0)
    between.port = server.sockets[0].getsockname()[1]
    async with server:
        yield between


def store_at(policy: OnStoreFailure, **settings: Any) -> RedisStore:
    return RedisStore(
        connect(RedisSettings(connect_seconds=0.3, **settings)),
        on_failure=lambda: policy,
        clock=time.monotonic,
        ageing_seconds=20.0,
        lease_seconds=LEASE_SECONDS,
        deadline_seconds=0.4,
    )


def at(port: int) -> dict[str, Any]:
    return {"addresses": (("127.0.0.1", port),)}


@asynccontextmanager
async def load_on(stores: list[RedisStore]) -> AsyncIterator[tuple[list[Load], Count]]:
    """Sidecars under load; afterwards everything is given back."""
    count = Count()
    loads = [Load(store, count) for store in stores]
    for store in stores:
        await store.start()
    await until(lambda: all(store.is_answering for store in stores))
    for load in loads:
        await load.hold_two()
    for load in loads:
        load.ask_without_a_pause()
    await until(lambda: all(store.sidecars == SIDECARS for store in stores))
    await until_served(loads)
    try:
        yield loads, count
    finally:
        for load in loads:
            await load.end()
    for load in loads:
        for lease in load.long:
            load.give_back(lease)


async def until(holds: Callable[[], Any], seconds: float = PATIENCE_SECONDS) -> None:
    async with asyncio.timeout(seconds):
        while True:
            result = holds()
            if await result if isinstance(result, Awaitable) else result:
                return
            await asyncio.sleep(0.005)


async def until_served(loads: list[Load], times: int = 20) -> None:
    """Wait until every sidecar was granted some more."""
    goals = [load.granted + times for load in loads]
    await until(lambda: all(load.granted >= goal for load, goal in zip(loads, goals, strict=True)))


async def until_in_distress(loads: list[Load], policy: OnStoreFailure) -> None:
    """Wait until the policy has taken over at every sidecar."""
    await until(lambda: not any(load.store.is_answering for load in loads))
    if policy is OnStoreFailure.LOCAL:
        await until_served(loads)
        assert not any(load.unanswered for load in loads)
    else:
        seen = [load.unanswered for load in loads]
        await until(lambda: all(load.unanswered > before for load, before in zip(loads, seen, strict=True)))


async def is_empty(port: int) -> bool:
    async with redis.asyncio.Redis(port=port) as client:
        return not await client.exists("{headgate}:leases", "{headgate}:held", "{headgate}:counts")


async def close(stores: list[RedisStore], port: int) -> None:
    """All was given back: so says Redis, and so say the sidecars."""
    # What a master was told last its replica may never hear: a lease given back just then stays until it expires.
    await until(lambda: is_empty(port), LEASE_SECONDS + PATIENCE_SECONDS)
    for store in stores:
        await store.stop()


def most(policy: OnStoreFailure, count: Count) -> int:
    """What may run at most: with `local`, those who are back may be granted what those who are not have taken."""
    del count
    return LIMIT + SHARE * (SIDECARS - 1) if policy is OnStoreFailure.LOCAL else LIMIT


@pytest.mark.parametrize("policy", POLICIES)
async def test_redis_killed_and_started_again_without_its_data(policy: OnStoreFailure, redis_server: Any) -> None:
    redis_server.start()
    stores = [store_at(policy, **at(redis_server.port)) for _ in range(SIDECARS)]
    async with load_on(stores) as (loads, count):
        assert count.most == LIMIT

        redis_server.kill()
        await until_in_distress(loads, policy)
        # What was held when it happened is soon over; from now on each has its share.
        await until(lambda: all(load.held <= SHARE for load in loads))
        for load in loads:
            load.most_granted_at = 0
        await until_served(loads) if policy is OnStoreFailure.LOCAL else None
        assert max(load.most_granted_at for load in loads) <= SHARE
        count.most = count.running
        redis_server.start()
        await until(lambda: all(store.is_answering for store in stores))
        await until_served(loads)

        assert count.most <= LIMIT
    await close(stores, redis_server.port)


@pytest.mark.parametrize("policy", POLICIES)
async def test_redis_stalled_for_two_seconds(policy: OnStoreFailure, redis_server: Any) -> None:
    redis_server.start()
    stores = [store_at(policy, **at(redis_server.port)) for _ in range(SIDECARS)]
    async with load_on(stores) as (loads, count):
        os.kill(redis_server.process.pid, signal.SIGSTOP)
        stalled_at = time.monotonic()
        await until_in_distress(loads, policy)
        await until(lambda: time.monotonic() - stalled_at > 2.0)
        os.kill(redis_server.process.pid, signal.SIGCONT)
        await until(lambda: all(store.is_answering for store in stores))
        await until_served(loads)

        assert count.most <= most(policy, count)
    await close(stores, redis_server.port)


@pytest.mark.parametrize("policy", POLICIES)
async def test_one_sidecar_cut_off_from_redis(policy: OnStoreFailure, redis_server: Any) -> None:
    redis_server.start()
    async with proxy(redis_server.port) as between:
        stores = [store_at(policy, **at(port)) for port in (between.port, redis_server.port, redis_server.port)]
        async with load_on(stores) as (loads, count):
            between.is_cut = True
            await until_in_distress(loads[:1], policy)
            assert not any(load.unanswered for load in loads[1:])
            await until_served(loads[1:])
            between.is_cut = False
            await until(lambda: stores[0].is_answering)
            await until_served(loads)

            assert count.most <= LIMIT + (SHARE if policy is OnStoreFailure.LOCAL else 0)
        await close(stores, redis_server.port)


@pytest.mark.parametrize("policy", POLICIES)
async def test_a_replica_takes_over_from_a_master_that_died(
    policy: OnStoreFailure, redis_server: Any, tmp_path: Path
) -> None:
    master, replica, sentinel = (type(redis_server)(redis_server.free_port()) for _ in range(3))
    master.options = ("--dir", str(tmp_path))
    (tmp_path / "replica").mkdir()
    replica.options = ("--dir", str(tmp_path / "replica"), "--replicaof", "127.0.0.1", str(master.port))
    sentinel.options, sentinel.config = ("--sentinel",), tmp_path / "sentinel.conf"
    sentinel.config.write_text(
        f"sentinel monitor main 127.0.0.1 {master.port} 1\n"
        "sentinel down-after-milliseconds main 400\nsentinel failover-timeout main 2000\n"
    )
    try:
        master.start()
        replica.start()
        await until(lambda: _has_replica(master.port))
        sentinel.start()
        await until(lambda: _knows_replica(sentinel.port))
        where: dict[str, Any] = {"type": RedisType.SENTINEL, "master": "main", **at(sentinel.port)}
        stores = [store_at(policy, **where) for _ in range(SIDECARS)]
        async with load_on(stores) as (loads, count):
            master.kill()
            await until_in_distress(loads, policy)
            await until(lambda: all(store.is_answering for store in stores))
            await until_served(loads)

            assert count.most <= most(policy, count)
        await close(stores, replica.port)
    finally:
        for server in (sentinel, replica, master):
            server.kill()


async def _has_replica(port: int) -> bool:
    async with redis.asyncio.Redis(port=port) as client:
        return any(
            value["state"] == "online"
            for key, value in (await client.info("replication")).items()
            if key.startswith("slave") and isinstance(value, dict)
        )


async def _knows_replica(port: int) -> bool:
    async with redis.asyncio.Redis(port=port) as client:
        return bool((await client.info("sentinel"))["master0"]["slaves"])
