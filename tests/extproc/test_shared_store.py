"""Waiting for a slot that another sidecar holds: two desks over one Redis."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager

import pytest
import redis.asyncio
from msgspec.structs import replace

from extproc.assembly import assemble
from extproc.desk import AdmissionDesk, Answer
from extproc.events import AcquireLease, JoinQueue, LeaseGranted, LeaseRefused
from headgate.errors import SettingsError
from headgate.lifecycle import Process
from headgate.policy.model import OnStoreFailure, Queue
from headgate.redis.connection import connect
from headgate.redis.url import read_redis_url
from headgate.settings import Settings, read_settings
from headgate.store import Lease, LeaseRequest, Scope, Store
from headgate.store.memory import MemoryStore
from headgate.store.redis.store import RedisStore

PATIENCE_SECONDS = 20.0


class Limits:
    """Those in force, by tier; a request of a tier that is not among them keeps its own."""

    def __init__(self) -> None:
        self.by_tier: dict[str, dict[str, int]] = {}

    def as_of_now(self, request: LeaseRequest) -> LeaseRequest:
        return replace(request, **self.by_tier.get(request.tier, {}))


class Sidecar:
    """A desk, and who was served at it."""

    def __init__(self, store: Store, served: list[str], limits: Limits) -> None:
        self.store = store
        self.limits = limits
        self.desk = AdmissionDesk(store, limits.as_of_now)
        self.served = served
        self.leases: dict[str, Lease] = {}
        self.unserved: list[str] = []

    async def ask(self, request: LeaseRequest) -> Answer:
        answered: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self.desk.acquire(AcquireLease(request, request.priority), answered.set_result)
        async with asyncio.timeout(PATIENCE_SECONDS):
            return await answered

    async def hold(self, name: str, request: LeaseRequest) -> None:
        answer = await self.ask(request)
        assert isinstance(answer, LeaseGranted)
        self.leases[name] = answer.lease

    def wait(self, name: str, request: LeaseRequest) -> None:
        def answered(answer: Answer) -> None:
            if isinstance(answer, LeaseGranted):
                self.served.append(name)
                self.leases[name] = answer.lease
            else:
                self.unserved.append(name)

        self.desk.wait(joining(request), answered)

    def release(self, name: str) -> None:
        self.desk.release(self.leases.pop(name))


def joining(request: LeaseRequest) -> JoinQueue:
    return JoinQueue(
        request=request,
        queue=Queue(max_wait_seconds=PATIENCE_SECONDS, max_depth=100),
        priority=request.priority,
        weight=1.0,
        size_bytes=100,
        max_wait_seconds=PATIENCE_SECONDS,
        give_up_reason="queue_timeout",
        scope=Scope.CLUSTER,
    )


def asking(tier: str = "premium", priority: int = 0, tenant: str = "acme", limit: int = 1) -> LeaseRequest:
    return LeaseRequest(tenant=tenant, tier=tier, priority=priority, cluster="best", cluster_limit=limit)


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE_SECONDS):
        while True:
            if holds():
                return
            await asyncio.sleep(0.002)


@asynccontextmanager
async def sharing(port: int, count: int = 2) -> AsyncIterator[list[Sidecar]]:
    async with AsyncExitStack() as stack:
        served: list[str] = []
        limits = Limits()
        sidecars, stores = [], []
        for _ in range(count):
            store = RedisStore(
                connect(read_redis_url(f"redis://127.0.0.1:{port}")),
                on_failure=lambda: OnStoreFailure.CLOSED,
                clock=time.monotonic,
                lease_seconds=600.0,
                claim_seconds=600.0,
                deadline_seconds=5.0,
            )
            await store.start()
            stack.push_async_callback(store.stop)
            stores.append(store)
            sidecars.append(Sidecar(store, served, limits))
        await until(lambda: all(store.is_answering for store in stores))
        yield sidecars


@pytest.fixture(params=["memory", "redis"])
async def either(request: pytest.FixtureRequest, redis_port: int, redis_is_empty: None) -> AsyncIterator[list[Sidecar]]:
    """Two names for one sidecar that is alone, and two sidecars that share a Redis."""
    if request.param == "memory":
        alone = Sidecar(MemoryStore(time.monotonic), [], Limits())
        yield [alone, alone]
    else:
        async with sharing(redis_port) as sidecars:
            yield sidecars


@pytest.fixture
async def pair(redis_port: int, redis_is_empty: None) -> AsyncIterator[list[Sidecar]]:
    async with sharing(redis_port) as sidecars:
        yield sidecars


def change_limits(sidecars: list[Sidecar], **by_tier: dict[str, int]) -> None:
    """Another policy is in force everywhere."""
    for sidecar in sidecars:
        sidecar.limits.by_tier = by_tier
        sidecar.desk.limits_changed()


async def until_asked(sidecars: list[Sidecar]) -> None:
    """Wait until nobody has anything to ask or to say."""
    for sidecar in sidecars:
        if isinstance(sidecar.store, RedisStore):
            await until(lambda store=sidecar.store: store._calling is not None and store._calling.done())
        await asyncio.sleep(0)


async def claims(port: int) -> int:
    async with redis.asyncio.Redis(port=port) as client:
        return int(await client.hlen("{headgate}:claims:best"))


async def until_claims(port: int, count: int) -> None:
    async with asyncio.timeout(PATIENCE_SECONDS):
        while True:
            if await claims(port) == count:
                return
            await asyncio.sleep(0.002)


async def test_a_release_at_one_sidecar_serves_who_waits_at_another(pair: list[Sidecar], redis_port: int) -> None:
    one, other = pair
    await one.hold("held", asking())
    other.wait("waiter", asking())
    await until_claims(redis_port, 1)

    one.release("held")

    await until(lambda: other.served == ["waiter"])
    await until_claims(redis_port, 0)


async def test_the_better_priority_goes_first_wherever_it_waits(pair: list[Sidecar], redis_port: int) -> None:
    one, other = pair
    await one.hold("held", asking())
    one.wait("batch", asking("batch", 3))
    await until_claims(redis_port, 1)
    other.wait("premium", asking("premium", 0))
    await until_claims(redis_port, 2)

    one.release("held")
    await until(lambda: one.served == ["premium"])
    other.release("premium")

    await until(lambda: one.served == ["premium", "batch"])


async def test_a_newcomer_does_not_pass_one_who_waits_at_another_sidecar(pair: list[Sidecar], redis_port: int) -> None:
    one, other = pair
    await one.hold("held", asking())
    other.wait("waiter", asking())
    await until_claims(redis_port, 1)

    one.release("held")

    assert isinstance(await one.ask(asking()), LeaseRefused)
    await until(lambda: other.served == ["waiter"])


async def test_slots_go_round_until_everybody_was_served(pair: list[Sidecar], redis_port: int) -> None:
    one = pair[0]
    for at in range(3):
        await one.hold(f"held-{at}", asking(limit=3))
    names = [f"{place}-{at}" for at in range(20) for place in (0, 1)]
    for name in names:
        pair[int(name[0])].wait(name, asking(limit=3, tenant=f"team-{name[-1]}"))
    await until_claims(redis_port, 2)

    for at in range(3):
        one.release(f"held-{at}")
    for done in range(len(names)):
        await until(lambda done=done: len(one.served) > done)
        assert one.store.in_flight(Scope.CLUSTER, "best") <= 3
        name = one.served[done]
        pair[int(name[0])].release(name)

    assert sorted(one.served) == sorted(names)
    assert not one.unserved
    await until_claims(redis_port, 0)


async def test_a_client_that_leaves_makes_way_for_who_waits_elsewhere(pair: list[Sidecar], redis_port: int) -> None:
    one, other = pair
    await one.hold("held", asking())
    place = other.desk.wait(joining(asking()), lambda _: None)
    assert place is not None
    await until_claims(redis_port, 1)
    one.wait("patient", asking("batch", 3))
    await until_claims(redis_port, 2)

    place.leave()
    one.release("held")

    await until(lambda: one.served == ["patient"])


# limits that change while somebody waits: nothing is told again by itself for ten minutes


async def test_a_limit_that_is_raised_serves_who_waits_at_once(either: list[Sidecar]) -> None:
    one, other = either
    await one.hold("held", asking())
    other.wait("waiter", asking())
    await until_asked(either)

    change_limits(either, premium={"cluster_limit": 2})

    await until(lambda: one.served == ["waiter"])


async def test_who_may_not_run_any_more_keeps_nobody_from_running(either: list[Sidecar]) -> None:
    one, other = either
    await one.hold("held", asking("batch", 3))
    await one.hold("premium", asking(limit=2))
    other.wait("first", asking(limit=2))
    one.wait("second", asking("batch", 3, limit=2))
    await until_asked(either)
    change_limits(either, premium={"tier_limit": 1})
    await until_asked(either)

    one.release("held")

    await until(lambda: one.served == ["second"])


async def test_one_who_is_served_by_other_limits_than_it_came_with_leaves_no_claim(
    pair: list[Sidecar], redis_port: int
) -> None:
    one, other = pair
    await one.hold("held", asking())
    other.wait("waiter", asking())
    await until_claims(redis_port, 1)
    change_limits(pair, premium={"tier_limit": 5})
    await until_asked(pair)

    one.release("held")

    await until(lambda: one.served == ["waiter"])
    await until_claims(redis_port, 0)


async def test_the_settings_choose_the_store(redis_port: int) -> None:
    process = Process(Settings(store="redis", redis_url=f"redis://127.0.0.1:{redis_port}"))
    assemble(process)
    [store] = [part for part in process.parts if isinstance(part, RedisStore)]

    await store.start()
    await until(lambda: b"headgate_store_answers 1.0" in process.metrics.exposition())
    exposition = process.metrics.exposition()
    await store.stop()

    assert b"headgate_store_sidecars 1.0" in exposition
    assert b"headgate_store_call_seconds_count 0.0" not in exposition
    alone = Process(Settings())
    assemble(alone)
    assert not any(isinstance(part, RedisStore) for part in alone.parts)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"store": "disk"}, "store: has to be memory or redis, not 'disk'"),
        ({"store": "redis", "redis_url": "http://cache"}, "redis_url: "),
        ({"lease_seconds": 0.5}, "lease_seconds: has to be at least 1 second"),
    ],
)
def test_settings_of_the_store_that_cannot_be_used(flags: dict[str, str | float | None], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        read_settings(flags, {})
