"""What a client meets when its tenant may have two requests in flight, through a real Envoy."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from headgate.transport import Server
from ratelimit.charges import Charge, Charging, Store, Tally
from ratelimit.config import load_configuration
from ratelimit.service import RateLimitService
from ratelimit.stats import Stats

FILE = b"""
domain: headgate-jobs
descriptors:
  - key: tenant
    descriptors:
      - {key: request_id, headgate: {max_in_flight: 2, lease: 1h}}
  - key: budget
    rate_limit: {unit: hour, requests_per_unit: 5}
"""
TENANT = {"request_headers": {"header_name": "x-headgate-tenant", "descriptor_key": "tenant"}}
REQUEST_ID = {"request_headers": {"header_name": "x-request-id", "descriptor_key": "request_id"}}
BUDGET = {"request_headers": {"header_name": "x-test-budget", "descriptor_key": "budget"}}
RELEASE = {"number": 1, "is_negative_hits": True}
RATE_LIMITS = [
    {"actions": [TENANT, REQUEST_ID]},
    {"actions": [BUDGET]},
    {"actions": [TENANT, REQUEST_ID], "apply_on_stream_done": True, "hits_addend": RELEASE},
]
PATIENCE_SECONDS = 10.0


class Model:
    """An upstream that answers when it is told to."""

    def __init__(self) -> None:
        self.waiting = 0
        self._answers: asyncio.Queue[None] = asyncio.Queue()

    def answer(self, requests: int = 1) -> None:
        for _ in range(requests):
            self._answers.put_nowait(None)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.readuntil(b"\r\n\r\n")
            self.waiting += 1
            answering = asyncio.create_task(self._answers.get())
            leaving = asyncio.create_task(reader.read(1))
            done, pending = await asyncio.wait({answering, leaving}, return_when=asyncio.FIRST_COMPLETED)
            for task in pending:
                task.cancel()
            if answering in done:
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\nconnection: close\r\n\r\ndone")
        finally:
            writer.close()


@dataclass
class CountingStore:
    """Counters that tell how many releases have come."""

    store: Store
    releases: int = 0

    async def charge(self, charges: Sequence[Charge], charging: Charging = Charging.EACH) -> tuple[Tally, ...]:
        tallies = await self.store.charge(charges, charging)
        self.releases += sum(charge.hits < 0 for charge in charges)
        return tallies

    async def close(self) -> None:
        await self.store.close()


@dataclass
class Edge:
    client: httpx.AsyncClient
    model: Model
    store: CountingStore

    def send(self, **headers: str) -> "asyncio.Task[httpx.Response]":
        names = {"x-headgate-tenant": "acme"} | {name.replace("_", "-"): value for name, value in headers.items()}
        return asyncio.create_task(self.client.get("/", headers=names, timeout=PATIENCE_SECONDS))

    async def hold(self, requests: int) -> "list[asyncio.Task[httpx.Response]]":
        """Send requests and wait until the model has them all."""
        before = self.model.waiting
        sent = [self.send() for _ in range(requests)]
        await self.until(lambda: self.model.waiting == before + requests)
        return sent

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not condition():  # noqa: ASYNC110  (counts in two other tasks; no one event says so)
                await asyncio.sleep(0.005)


@pytest.fixture
async def edge(
    envoy: Callable[..., AbstractAsyncContextManager[httpx.AsyncClient]],
    surroundings: Any,
    new_server: Callable[..., Server],
) -> AsyncIterator[Edge]:
    configuration, model = load_configuration([("jobs.yaml", FILE)]), Model()
    store, waits = CountingStore(surroundings.counters(lambda: 1_000_000.0)), surroundings.store != "memory"
    service = RateLimitService(configuration=lambda _: configuration, store=store, store_waits=waits, stats=Stats())
    server = new_server("127.0.0.1:0", [service.service()], max_message_bytes=1 << 20)
    address = await server.start()
    upstream = await asyncio.start_server(model.serve, "127.0.0.1", 0)
    host, port = upstream.sockets[0].getsockname()
    async with envoy(address, rate_limits=RATE_LIMITS, model=f"{host}:{port}", domain="headgate-jobs") as client:
        yield Edge(client, model, store)
    upstream.close()
    await upstream.wait_closed()
    await server.drain(1)
    await store.close()


async def test_a_third_request_waits_for_nobody_and_passes_once_one_has_ended(edge: Edge) -> None:
    held = await edge.hold(2)

    assert (await edge.send()).status_code == 429

    edge.model.answer()
    await asyncio.wait(held, return_when=asyncio.FIRST_COMPLETED)
    await edge.until(lambda: edge.store.releases == 2)
    edge.model.answer(2)
    assert (await edge.send()).status_code == 200
    assert sorted([(await response).status_code for response in held]) == [200, 200]


async def test_a_refused_requests_release_frees_no_place(edge: Edge) -> None:
    held = await edge.hold(2)

    for refused in range(1, 4):
        assert (await edge.send()).status_code == 429
        # Envoy sends the release of a refused request as well.
        await edge.until(lambda refused=refused: edge.store.releases == refused)  # type: ignore[misc]

    edge.model.answer(2)
    assert [(await response).status_code for response in held] == [200, 200]


async def test_a_client_that_leaves_gives_its_place_back(edge: Edge) -> None:
    leaving, staying = await edge.hold(2)

    leaving.cancel()
    await edge.until(lambda: edge.store.releases == 1)
    edge.model.answer(2)

    assert (await edge.send()).status_code == 200
    assert (await staying).status_code == 200


async def test_a_request_that_another_limit_refuses_takes_no_place(edge: Edge) -> None:
    for _ in range(5):
        edge.model.answer()
        assert (await edge.send(x_test_budget="b")).status_code == 200
    refused = [await edge.send(x_test_budget="b") for _ in range(3)]
    assert {response.status_code for response in refused} == {429}

    held = await edge.hold(2)
    edge.model.answer(2)
    assert [(await response).status_code for response in held] == [200, 200]


async def test_another_tenant_has_places_of_its_own(edge: Edge) -> None:
    held = await edge.hold(2)
    edge.model.answer(3)

    assert (await edge.send(x_headgate_tenant="globex")).status_code == 200
    assert [(await response).status_code for response in held] == [200, 200]
