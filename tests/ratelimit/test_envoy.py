"""A client's view of the tenant limits, through a real Envoy."""

import re
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import httpx
import pytest

import headgate.policy
from headgate.policy.load import load_policy
from headgate.policy.model import Tenant, TenantLimits
from headgate.transport import Server
from ratelimit.current import CurrentConfiguration
from ratelimit.service import RateLimitService
from ratelimit.stats import Stats

DEFAULT = Path(headgate.policy.__file__).with_name("default.yaml")


@dataclass
class Clock:
    now: float = 1_000_000.0
    """40 seconds into a minute."""


@dataclass
class Edge:
    """Envoy with the service behind it."""

    client: httpx.AsyncClient
    clock: Clock = field(default_factory=Clock)

    async def send(self, tenant: str, tokens: int = 0, protocol: str = "openai") -> httpx.Response:
        headers = {"x-headgate-tenant": tenant, "x-test-charged-tokens": str(tokens), "x-test-protocol": protocol}
        return await self.client.post("/v1/chat/completions", headers=headers)

    async def statuses(self, tenant: str, times: int, tokens: int = 0) -> list[int]:
        return [(await self.send(tenant, tokens)).status_code for _ in range(times)]


def configuration(**limits: TenantLimits) -> CurrentConfiguration:
    policy = load_policy(DEFAULT.read_bytes(), "default.yaml")
    tenants = {name: Tenant(name=name, tier="premium", limits=own) for name, own in limits.items()}
    return CurrentConfiguration(replace(policy, tenants=tenants))


@pytest.fixture
async def edge(
    envoy: Callable[[str], AbstractAsyncContextManager[httpx.AsyncClient]],
    surroundings: Any,
    new_server: Callable[..., Server],
) -> AsyncIterator[Edge]:
    clock = Clock()
    current = configuration(
        acme=TenantLimits(requests_per_minute=5, tokens_per_minute=1000), globex=TenantLimits(requests_per_minute=5)
    )
    store, waits = surroundings.counters(lambda: clock.now), surroundings.store != "memory"
    service = RateLimitService(configuration=current, store=store, store_waits=waits, stats=Stats())
    server = new_server("127.0.0.1:0", [service.service()], max_message_bytes=1 << 20)
    address = await server.start()
    async with envoy(address) as client:
        yield Edge(client, clock)
    await server.drain(1)
    await store.close()


async def test_a_tenant_gets_its_requests_per_minute_and_no_more(edge: Edge) -> None:
    assert await edge.statuses("acme", 7) == [200] * 5 + [429] * 2
    assert await edge.statuses("globex", 6) == [200] * 5 + [429]
    assert await edge.statuses("stranger", 9) == [200] * 9

    edge.clock.now += 20

    assert await edge.statuses("acme", 6) == [200] * 5 + [429]


async def test_a_tenant_gets_its_tokens_per_minute_and_a_refused_request_costs_nothing(edge: Edge) -> None:
    assert await edge.statuses("acme", 1, tokens=700) == [200]
    assert await edge.statuses("acme", 9, tokens=301) == [429] * 9
    assert await edge.statuses("acme", 1, tokens=300) == [200]
    assert await edge.statuses("acme", 2, tokens=0) == [200] * 2


async def test_an_openai_client_sees_its_own_error_and_when_to_come_back(edge: Edge) -> None:
    await edge.statuses("acme", 5)
    edge.clock.now += 7.5

    refused = await edge.send("acme")

    assert refused.status_code == 429
    assert refused.headers.get_list("content-type") == ["application/json"]
    assert refused.json()["error"] == {
        "message": "Rate limit reached for tenant acme on requests per minute: "
        "limit 5, used 5, requested 1. Please try again in 13s.",
        "type": "requests",
        "param": None,
        "code": "rate_limit_exceeded",
    }
    assert refused.headers["retry-after"] == "13"
    assert refused.headers["retry-after-ms"] == "12500"
    assert refused.headers["x-headgate-decision"] == "reject; reason=requests_per_minute"
    assert refused.headers["x-ratelimit-remaining"] == "0"


async def test_a_triton_client_sees_its_own_error_and_the_token_budget_as_its_reason(edge: Edge) -> None:
    refused = await edge.send("acme", tokens=1001, protocol="triton")

    assert refused.status_code == 429
    assert refused.headers["content-type"] == "application/json"
    assert re.fullmatch("Rate limit reached .* tokens per minute: limit 1000, .*", refused.json()["error"])
    assert refused.headers["x-headgate-decision"] == "reject; reason=tokens_per_minute"
    assert refused.headers["x-should-retry"] == "false"


async def test_an_admitted_request_gets_no_header_of_a_refusal(edge: Edge) -> None:
    admitted = await edge.send("acme", tokens=1)

    assert (admitted.status_code, admitted.text) == (200, "admitted")
    assert not {"retry-after", "x-headgate-decision", "x-should-retry"} & set(admitted.headers)
