"""Every kind of Redis an URL can name: leases are shared there, and a release wakes the other sidecar."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis.asyncio

from headgate.policy.model import OnStoreFailure
from headgate.redis.connection import connect
from headgate.redis.url import read_redis_url
from headgate.store import Lease, LeaseRequest, Refused
from headgate.store.redis.store import RedisStore

PATIENCE_SECONDS = 20.0
REQUEST = LeaseRequest(tenant="acme", tier="premium", cluster="best", cluster_limit=1)


@pytest.fixture
def start(redis_server: Any, tmp_path: Path) -> Iterator[Callable[..., Any]]:
    started: list[Any] = []

    def one_more(*options: str, config: Path | None = None) -> Any:
        server = type(redis_server)(redis_server.free_port(), options, config=config)
        server.start()
        started.append(server)
        return server

    yield one_more
    for server in started:
        server.kill()


async def ask(store: RedisStore, request: LeaseRequest = REQUEST) -> Lease | Refused | None:
    answered: asyncio.Future[Lease | Refused | None] = asyncio.get_running_loop().create_future()
    store.acquire(request, answered.set_result)
    async with asyncio.timeout(PATIENCE_SECONDS):
        return await answered


async def share_at(url: str) -> None:
    """One sidecar takes the only slot, another waits for it and gets it."""
    one, other = (
        RedisStore(
            connect(read_redis_url(url)),
            on_failure=lambda: OnStoreFailure.CLOSED,
            clock=time.monotonic,
            ageing_seconds=20.0,
            lease_seconds=600.0,
            claim_seconds=600.0,
            deadline_seconds=5.0,
        )
        for _ in range(2)
    )
    line = WaitingForOne(other)
    for store in (one, other):
        await store.start()
    await until(lambda: one.is_answering and line.has_been_called)
    held = await ask(one)
    assert isinstance(held, Lease)
    assert isinstance(await ask(other, line.request), Refused)

    one.release(held)

    await until(lambda: line.woken)
    lease = await ask(other, line.request)
    assert isinstance(lease, Lease)
    other.release(lease)
    for store in (one, other):
        await store.stop()


class WaitingForOne:
    """One who waits, and whether it heard of a release."""

    def __init__(self, store: RedisStore) -> None:
        self.request = LeaseRequest(
            tenant="acme", tier="premium", cluster="best", cluster_limit=1, waiting_since=time.monotonic()
        )
        self.woken = False
        self.has_been_called = False
        store.serve_line(self)
        store.on_release(self.heard)

    def heard(self, lease: Lease) -> None:
        self.woken = self.woken or lease.request.tenant == "acme"

    def clusters(self) -> list[str]:
        return []

    def claims(self, cluster: str) -> list[Any]:
        from headgate.store import Claim

        return [Claim(self.request, 1)]

    def ask_again(self) -> None:
        self.has_been_called = True


async def until(holds: Callable[[], Any]) -> None:
    async with asyncio.timeout(PATIENCE_SECONDS):
        while True:
            result = holds()
            if await result if isinstance(result, Awaitable) else result:
                return
            await asyncio.sleep(0.005)


async def test_one_server(start: Callable[..., Any]) -> None:
    await share_at(f"redis://:secret@127.0.0.1:{start('--requirepass', 'secret').port}/3")


async def test_a_socket(start: Callable[..., Any], tmp_path: Path) -> None:
    start("--unixsocket", str(tmp_path / "redis.sock"))

    await share_at(f"unix://{tmp_path}/redis.sock")


async def test_a_master_named_by_sentinels(start: Callable[..., Any], tmp_path: Path) -> None:
    config = tmp_path / "sentinel.conf"
    config.write_text(f"sentinel monitor main 127.0.0.1 {start().port} 1\n")

    await share_at(f"redis+sentinel://127.0.0.1:{start('--sentinel', config=config).port}/main")


async def test_a_cluster(start: Callable[..., Any], tmp_path: Path) -> None:
    nodes = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        nodes.append(start("--cluster-enabled", "yes", "--dir", str(tmp_path / name)))
    for at, node in enumerate(nodes):
        async with redis.asyncio.Redis(port=node.port) as client:
            await client.execute_command("CLUSTER ADDSLOTS", *range(at * 8192, (at + 1) * 8192))
            await client.execute_command("CLUSTER SET-CONFIG-EPOCH", at + 1)
    async with redis.asyncio.Redis(port=nodes[0].port) as client:
        await client.execute_command("CLUSTER MEET", "127.0.0.1", nodes[1].port)
    for node in nodes:
        await until(lambda node=node: _agrees(node.port))

    await share_at(f"redis+cluster://127.0.0.1:{nodes[0].port},127.0.0.1:{nodes[1].port}")


async def _agrees(port: int) -> bool:
    async with redis.asyncio.Redis(port=port, decode_responses=True) as client:
        state = (await client.execute_command("CLUSTER INFO"))["cluster_state"]
        return state == "ok" and len(await client.execute_command("CLUSTER SLOTS")) == 2
