"""Any sequence of questions and releases, at two sidecars over one Redis and at one ledger in memory: same answers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import redis.asyncio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from headgate.store import Lease, LeaseRequest, Refused, Scope
from headgate.store.ledger import Ledger
from headgate.store.redis.store import RedisStore

TENANTS = {"acme": "premium", "umbrella": "premium", "globex": "interactive", "hobby": "batch", "public": "batch"}
TIERS = ("premium", "interactive", "batch")
CLUSTERS = ("best", "fast")
EVENTS = 40
PATIENCE_SECONDS = 20.0


@dataclass(frozen=True, kw_only=True)
class Rules:
    """The limits of one imagined policy."""

    tenants: dict[str, int | None]
    tiers: dict[str, int | None]
    clusters: dict[str, int | None]
    tokens: dict[str, int | None]
    reserved: dict[str, float]

    def question(self, tenant: str, cluster: str | None, tokens: int) -> LeaseRequest:
        tier = TENANTS[tenant]
        return LeaseRequest(
            tenant=tenant,
            tier=tier,
            cluster=cluster,
            tokens=tokens,
            tenant_limit=self.tenants[tenant],
            tier_limit=self.tiers[tier],
            cluster_limit=self.clusters[cluster] if cluster else None,
            cluster_token_limit=self.tokens[cluster] if cluster else None,
            reserved=self.reserved,
        )


@dataclass(frozen=True)
class Ask:
    sidecar: int
    tenant: str
    cluster: str | None
    tokens: int


@dataclass(frozen=True)
class Release:
    """Of the leases ever granted, the one at this place from the end; maybe a second time."""

    place: int


def limits(names: Sequence[str], largest: int) -> st.SearchStrategy[dict[str, int | None]]:
    return st.fixed_dictionaries({name: st.none() | st.integers(0, largest) for name in names})


RULES = st.builds(
    Rules,
    tenants=limits(list(TENANTS), 6),
    tiers=limits(TIERS, 8),
    clusters=limits(CLUSTERS, 12),
    tokens=limits(CLUSTERS, 400),
    reserved=st.lists(st.integers(0, 50), min_size=3, max_size=3)
    .filter(lambda percents: sum(percents) <= 100)
    .map(lambda percents: {tier: p / 100 for tier, p in zip(TIERS, percents, strict=True) if p}),
)
EVENT = st.builds(
    Ask, st.integers(0, 1), st.sampled_from(list(TENANTS)), st.none() | st.sampled_from(CLUSTERS), st.integers(0, 150)
) | st.builds(Release, st.integers(0, 20))


class Both:
    """Two sidecars and a ledger, asked the same."""

    def __init__(self, rules: Rules, stores: Sequence[RedisStore], client: Any) -> None:
        self.rules = rules
        self.stores = stores
        self.client = client
        self.ledger = Ledger()
        self.granted: list[tuple[RedisStore, Lease, Lease]] = []
        self.held: dict[int, Lease] = {}

    async def follow(self, event: Ask | Release) -> None:
        match event:
            case Ask():
                await self.ask(event)
            case Release() if event.place < len(self.granted):
                await self.release(*self.granted[-1 - event.place])
            case _:
                return

    async def ask(self, event: Ask) -> None:
        request = self.rules.question(event.tenant, event.cluster, event.tokens)
        store = self.stores[event.sidecar]
        expected, answer = self.ledger.acquire(request, 0.0), await ask(store, request)
        if isinstance(expected, Lease):
            assert isinstance(answer, Lease), (answer, expected)
            assert answer.id not in {lease.id for _, lease, _ in self.granted}
            self.granted.append((store, answer, expected))
            self.held[answer.id] = answer
        else:
            assert isinstance(answer, Refused)
            assert answer.scope is expected.scope
            assert 0.0 < answer.retry_after_seconds <= 120.0
            if len(self.held) == len(self.granted):
                assert answer.retry_after_seconds == expected.retry_after_seconds
        self.check_view(store, request)

    async def release(self, store: RedisStore, lease: Lease, mirrored: Lease) -> None:
        told: list[Lease] = []
        store.on_release(told.append)
        store.release(lease)
        store._listeners.clear()
        assert told == ([lease] if self.ledger.release(mirrored, 0.0) else [])
        self.held.pop(lease.id, None)
        await until_told(store)

    def check_view(self, store: RedisStore, request: LeaseRequest) -> None:
        """The one who just asked knows the numbers."""
        assert store.in_flight(Scope.TENANT, request.tenant) == self.ledger.in_flight(Scope.TENANT, request.tenant)
        if request.cluster:
            assert store.usage(request.cluster) == self.ledger.usage(request.cluster)

    async def check(self) -> None:
        """No limit is exceeded, as counted here."""
        for scope, limits, key in (
            (Scope.TENANT, self.rules.tenants, lambda request: request.tenant),
            (Scope.TIER, self.rules.tiers, lambda request: request.tier if request.cluster else None),
            (Scope.CLUSTER, self.rules.clusters, lambda request: request.cluster),
            (Scope.CLUSTER_TOKENS, self.rules.tokens, lambda request: request.cluster),
        ):
            for name, limit in limits.items():
                mine = [lease.request for lease in self.held.values() if key(lease.request) == name]
                used = sum(r.tokens for r in mine) if scope is Scope.CLUSTER_TOKENS else len(mine)
                assert limit is None or used <= limit

    async def end(self) -> None:
        for granted in self.granted:
            await self.release(*granted)
        assert not await self.client.exists("{headgate}:leases", "{headgate}:held", "{headgate}:counts")


async def ask(store: RedisStore, request: LeaseRequest) -> Lease | Refused | None:
    answered: asyncio.Future[Lease | Refused | None] = asyncio.get_running_loop().create_future()
    store.acquire(request, answered.set_result)
    async with asyncio.timeout(PATIENCE_SECONDS):
        return await answered


async def until_told(store: RedisStore) -> None:
    """Wait until Redis has heard everything."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while store._calling is not None and not store._calling.done():
            await asyncio.wait([store._calling])


@asynccontextmanager
async def two_stores(start: Any) -> AsyncIterator[Sequence[RedisStore]]:
    stores = [start(), start()]
    try:
        yield stores
    finally:
        for store in stores:
            await store.stop()


def test_redis_answers_as_the_ledger_in_memory_does(redis_port: int, redis_is_empty: None, new_store: Any) -> None:
    @settings(max_examples=100, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])
    @given(rules=RULES, events=st.lists(EVENT, min_size=EVENTS // 2, max_size=EVENTS))
    def same(rules: Rules, events: list[Ask | Release]) -> None:
        asyncio.run(compare(rules, events))

    async def compare(rules: Rules, events: list[Ask | Release]) -> None:
        async with redis.asyncio.Redis(port=redis_port) as client, two_stores(lambda: new_store(redis_port)) as stores:
            await client.flushall()
            both = Both(rules, stores, client)
            for event in events:
                await both.follow(event)
                await both.check()
            await both.end()

    same()
