"""Token budgets over the wire, in memory and in a real Redis: charged at admission, put right at the end."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import grpc.aio
import pytest
from msgspec import structs

import headgate.policy
from headgate.pb import ratelimit_pb2 as pb
from headgate.policy.load import load_policy
from headgate.policy.model import Tenant, TenantLimits
from headgate.record import RecordFeed
from headgate.redis.connection import connect
from headgate.redis.settings import RedisSettings
from headgate.transport.grpcio import GrpcioServer
from ratelimit.charges import Store
from ratelimit.current import CurrentConfiguration
from ratelimit.guarded import GuardedStore
from ratelimit.memory import MemoryStore
from ratelimit.redis_store import RedisStore
from ratelimit.service import RateLimitService
from ratelimit.settlement import Settlement
from ratelimit.stats import Stats
from tests import records

PATIENCE_SECONDS = 10.0
T = 1_000_000.0
"""40 seconds into a minute."""
POLICY = load_policy(Path(headgate.policy.__file__).with_name("default.yaml").read_bytes(), "default.yaml")
LIMITS = {
    "acme": TenantLimits(requests_per_minute=50, tokens_per_minute=1000, cached_token_weight=0.25),
    "globex": TenantLimits(tokens_per_minute=1000),
}
RECORD = records.finished(
    request_id="r1", prompt_tokens=100, output_tokens=50, estimated_prompt_tokens=120, charged_tokens=400
)


@dataclass
class Moment:
    now: float = T


@dataclass
class Bench:
    """The service behind a real gRPC server, and the records of what it admitted."""

    call: grpc.aio.UnaryUnaryMultiCallable
    settlement: Settlement
    moment: Moment
    records: RecordFeed = field(default_factory=RecordFeed)

    async def ask(self, tokens: int, request_id: str = "r1", tenant: str = "acme") -> pb.RateLimitResponse:
        """What Envoy asks about one request."""
        request = pb.RateLimitRequest(domain="headgate")
        for limit, hits in (("requests", None), ("tokens", tokens)):
            descriptor = request.descriptors.add()
            descriptor.entries.add(key="tenant", value=tenant)
            descriptor.entries.add(key="limit", value=limit)
            if hits is not None:
                descriptor.hits_addend.value = hits
        told = request.descriptors.add()
        told.entries.add(key="protocol", value="openai")
        if request_id:
            told.entries.add(key="request_id", value=request_id)
        return pb.RateLimitResponse.FromString(await self.call(request.SerializeToString()))

    async def admitted(self, tokens: int, request_id: str = "r1", tenant: str = "acme") -> bool:
        return (await self.ask(tokens, request_id, tenant)).overall_code == pb.RateLimitResponse.OK

    async def used(self, tenant: str = "acme") -> int:
        """How much of the budget is taken."""
        return 1000 - (await self.ask(0, "", tenant)).statuses[1].limit_remaining

    async def ends(self, **facts: object) -> None:
        """A request ends, and everything that follows from it has happened."""
        self.records.publish(structs.replace(RECORD, **facts))  # type: ignore[arg-type]
        async with asyncio.timeout(PATIENCE_SECONDS):
            while self.settlement.is_busy:  # noqa: ASYNC110  (a property of another task)
                await asyncio.sleep(0.002)


@pytest.fixture(params=["memory", "redis", "redis by its own time"])
async def bench(request: pytest.FixtureRequest, redis_port: int, redis_is_empty: None) -> AsyncIterator[Bench]:
    moment = Moment()

    def clock() -> float:
        return moment.now

    store: Store = MemoryStore(clock)
    if request.param != "memory":
        redis = connect(RedisSettings(addresses=(("127.0.0.1", redis_port),)))
        is_own_time = "own" in request.param
        if is_own_time:
            await _early_in_a_minute()
            moment.now = time.time()
        remote = RedisStore(redis, clock=None if is_own_time else clock)
        store = GuardedStore(remote, MemoryStore(clock), deadline_seconds=5.0)
    settlement = Settlement(store, clock, lambda tenant: LIMITS[tenant].cached_token_weight)
    tenants = {name: Tenant(name=name, tier="premium", limits=limits) for name, limits in LIMITS.items()}
    service = RateLimitService(
        configuration=CurrentConfiguration(replace(POLICY, tenants=tenants)),
        store=store,
        stats=Stats(),
        settlement=settlement,
    )
    server = GrpcioServer("127.0.0.1:0", [service.service()], max_message_bytes=1 << 20)
    address = await server.start()
    await settlement.start()
    async with grpc.aio.insecure_channel(address) as channel:
        call = channel.unary_unary("/envoy.service.ratelimit.v3.RateLimitService/ShouldRateLimit")
        found = Bench(call, settlement, moment)
        found.records.follow(settlement.ended)
        yield found
    await server.drain(1)
    await settlement.stop()
    await store.close()


async def _early_in_a_minute() -> None:
    """Redis's own clock cannot be set: a test that counts in one minute must not begin at its end."""
    left = 60 - time.time() % 60
    if left < PATIENCE_SECONDS:
        await asyncio.sleep(left)


async def test_a_finished_request_costs_what_it_used(bench: Bench) -> None:
    assert await bench.admitted(400)
    assert await bench.used() == 400

    await bench.ends()

    assert await bench.used() == 150
    assert bench.settlement.settled.given_back == 250


async def test_a_request_that_used_more_than_its_estimate_is_charged_the_rest(bench: Bench) -> None:
    assert await bench.admitted(400)

    await bench.ends(output_tokens=1100)

    assert await bench.used() == 1000
    assert not await bench.admitted(1, "r2")
    assert bench.settlement.settled.charged == 800


async def test_a_record_settles_once_however_often_it_comes(bench: Bench) -> None:
    assert await bench.admitted(400)
    assert await bench.admitted(400, "r2")

    for _ in range(3):
        await bench.ends()

    assert await bench.used() == 550


async def test_without_reported_usage_the_estimate_stays(bench: Bench) -> None:
    assert await bench.admitted(400)

    await bench.ends(prompt_tokens=None, output_tokens=None, estimated_output_tokens=7)
    await bench.ends()

    assert await bench.used() == 400


async def test_what_no_model_worked_on_is_given_back_in_full(bench: Bench) -> None:
    assert await bench.admitted(400)

    await bench.ends(status=503, prompt_tokens=None, output_tokens=None)

    assert await bench.used() == 0


async def test_what_was_charged_and_then_rejected_is_given_back_in_full(bench: Bench) -> None:
    assert await bench.admitted(400)

    await bench.ends(verdict="REJECT", prompt_tokens=None, output_tokens=None)

    assert await bench.used() == 0


async def test_a_refused_request_was_never_charged_and_its_record_gives_nothing_back(bench: Bench) -> None:
    assert await bench.admitted(700)

    assert not await bench.admitted(400, "r2")
    await bench.ends(request_id="r2", verdict="REJECT")

    assert await bench.used() == 700


async def test_cached_tokens_weigh_what_the_policy_says(bench: Bench) -> None:
    assert await bench.admitted(400)
    assert await bench.admitted(400, tenant="globex", request_id="g1")

    await bench.ends(cached_tokens=80)
    await bench.ends(cached_tokens=80, tenant="globex", request_id="g1")

    assert await bench.used() == 20 + 20 + 50
    assert await bench.used("globex") == 150


async def test_a_window_that_has_passed_is_settled_with_no_other(bench: Bench) -> None:
    assert await bench.admitted(400)
    bench.moment.now += 60

    await bench.ends()
    await bench.ends(output_tokens=5000)

    assert bench.settlement.settled.given_back == bench.settlement.settled.charged == 0


@pytest.mark.parametrize("facts", [{"tenant": "globex"}, {"charged_tokens": 399}, {"request_id": "r2"}])
async def test_a_record_of_another_request_settles_nothing(bench: Bench, facts: dict[str, Any]) -> None:
    assert await bench.admitted(400)

    await bench.ends(**facts)
    assert await bench.used() == 400

    await bench.ends()
    assert await bench.used() == 150


async def test_requests_that_share_an_id_keep_their_estimates(bench: Bench) -> None:
    assert await bench.admitted(400)
    assert await bench.admitted(10)
    assert await bench.admitted(400)

    for charged in (400, 10, 400):
        await bench.ends(charged_tokens=charged, prompt_tokens=0, output_tokens=0)

    assert await bench.used() == 810


async def test_no_more_requests_pass_at_once_than_the_budget_holds(bench: Bench) -> None:
    answers = await asyncio.gather(*(bench.admitted(300, f"r{at}") for at in range(40)))

    assert sorted(answers) == [False] * 37 + [True] * 3
    assert await bench.used() == 900


async def test_whole_load_ends_with_the_exact_usage(bench: Bench) -> None:
    async def one(at: int) -> int:
        if not await bench.admitted(100, f"r{at}"):
            return 0
        used = at % 7
        bench.records.publish(
            structs.replace(RECORD, request_id=f"r{at}", charged_tokens=100, prompt_tokens=used, output_tokens=0)
        )
        return used

    used = sum(await asyncio.gather(*(one(at) for at in range(50))))
    await bench.ends(request_id="nobody")

    assert await bench.used() == used


async def test_clients_see_their_tokens_decrease_and_come_back(bench: Bench) -> None:
    def told(answer: pb.RateLimitResponse) -> dict[str, str]:
        return {header.key: header.value for header in answer.response_headers_to_add}

    first = told(await bench.ask(400))
    await bench.ends()
    second = told(await bench.ask(400, "r2"))
    refused = told(await bench.ask(500, "r3"))

    assert (first["x-ratelimit-limit-tokens"], first["x-ratelimit-remaining-tokens"]) == ("1000", "600")
    assert (second["x-ratelimit-remaining-tokens"], second["x-ratelimit-remaining-requests"]) == ("450", "48")
    assert (refused["x-ratelimit-remaining-tokens"], refused["x-ratelimit-remaining-requests"]) == ("450", "48")


@pytest.fixture
def away(redis_server: Any) -> Callable[[], None]:
    """Kill the Redis of the test."""
    redis_server.start()
    return redis_server.kill  # type: ignore[no-any-return]


async def test_while_redis_is_away_nothing_is_settled_in_its_place(away: Callable[[], None], redis_server: Any) -> None:
    local = MemoryStore(lambda: T)
    remote = RedisStore(connect(RedisSettings(addresses=(("127.0.0.1", redis_server.port),))), clock=lambda: T)
    store = GuardedStore(remote, local, deadline_seconds=5.0)
    settlement = Settlement(store, lambda: T)
    limits = TenantLimits(tokens_per_minute=1000)
    policy = replace(POLICY, tenants={"acme": Tenant(name="acme", tier="premium", limits=limits)})
    service = RateLimitService(
        configuration=CurrentConfiguration(policy), store=store, stats=Stats(), settlement=settlement
    )

    async def call(message: bytes) -> bytes:
        return await service.should_rate_limit(message)

    bench = Bench(call, settlement, Moment())  # type: ignore[arg-type]
    bench.records.follow(settlement.ended)
    await settlement.start()
    assert await bench.admitted(400)
    away()

    await bench.ends()

    assert (settlement.settled.given_back, len(local)) == (0, 0)
    await settlement.stop()
    await store.close()
