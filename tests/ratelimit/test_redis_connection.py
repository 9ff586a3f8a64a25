"""Every way to reach Redis that the settings know, each with a real server."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import redis.asyncio

from headgate.errors import StoreUnavailable
from headgate.redis.connection import connect
from ratelimit.charges import Charge, Charging
from ratelimit.limits import Algorithm
from ratelimit.redis_store import RedisStore
from ratelimit.settings import read_ratelimit_settings

T = 1_000_000.0
PATIENCE_SECONDS = 20.0
Start = Callable[..., Any]


@pytest.fixture
def start(redis_server: Any) -> Iterator[Start]:
    """Start Redis servers with further options; the type is the fixture `redis_server`'s."""
    servers: list[Any] = []

    def begin(*options: str, config: Path | None = None) -> Any:
        server = type(redis_server)(redis_server.free_port(), options, config=config)
        server.start()
        servers.append(server)
        return server

    yield begin
    for server in reversed(servers):
        server.kill()


@asynccontextmanager
async def store(**variables: str) -> AsyncIterator[RedisStore]:
    found = RedisStore(connect(read_ratelimit_settings(variables).redis), clock=lambda: T)
    try:
        yield found
    finally:
        await found.close()


def hit(key: str = "k", hits: int = 1) -> Charge:
    return Charge(key=key, limit=2, window_seconds=3600, hits=hits)


async def admitted(found: RedisStore) -> int:
    return [(await found.charge([hit()]))[0].is_over for _ in range(4)].count(False)


async def test_a_password_is_sent_and_a_wrong_one_is_an_unavailable_store(start: Start) -> None:
    server = start("--requirepass", "secret")
    async with store(REDIS_URL=f"127.0.0.1:{server.port}", REDIS_AUTH="secret") as found:
        assert await admitted(found) == 2
    async with store(REDIS_URL=f"redis://default:secret@127.0.0.1:{server.port}/3") as found:
        assert await admitted(found) == 2
    async with store(REDIS_URL=f"127.0.0.1:{server.port}") as found:
        with pytest.raises(StoreUnavailable):
            await found.charge([hit()])


async def test_a_unix_socket_is_a_path(start: Start, tmp_path: Path) -> None:
    start("--unixsocket", str(tmp_path / "redis.sock"))

    async with store(REDIS_URL=str(tmp_path / "redis.sock")) as found:
        assert await admitted(found) == 2


async def test_sentinels_name_the_master(start: Start, tmp_path: Path) -> None:
    master = start()
    config = tmp_path / "sentinel.conf"
    config.write_text(f"sentinel monitor main 127.0.0.1 {master.port} 1\n")
    sentinel = start("--sentinel", config=config)

    async with store(REDIS_TYPE="SENTINEL", REDIS_URL=f"main,127.0.0.1:{sentinel.port}") as found:
        assert await admitted(found) == 2
    async with redis.asyncio.Redis(port=master.port) as client:
        assert await client.dbsize() == 1


@pytest.fixture
async def cluster(start: Start, tmp_path: Path) -> AsyncIterator[RedisStore]:
    """Two nodes that share the slots between them."""
    nodes = [start("--cluster-enabled", "yes", "--dir", str(_made(tmp_path / name))) for name in ("one", "two")]
    for at, node in enumerate(nodes):
        async with redis.asyncio.Redis(port=node.port) as client:
            await client.execute_command("CLUSTER ADDSLOTS", *range(at * 8192, (at + 1) * 8192))
            await client.execute_command("CLUSTER SET-CONFIG-EPOCH", at + 1)
    async with redis.asyncio.Redis(port=nodes[0].port) as client:
        await client.execute_command("CLUSTER MEET", "127.0.0.1", nodes[1].port)
    for node in nodes:
        await _until_agreed(node.port)
    async with store(REDIS_TYPE="CLUSTER", REDIS_URL=f"127.0.0.1:{nodes[0].port}") as found:
        yield found


async def _until_agreed(port: int) -> None:
    """Wait until a node knows both nodes' slots."""
    async with redis.asyncio.Redis(port=port, decode_responses=True) as client, asyncio.timeout(PATIENCE_SECONDS):
        state = ""
        while state != "ok" or len(await client.execute_command("CLUSTER SLOTS")) < 2:
            await asyncio.sleep(0.02)
            state = (await client.execute_command("CLUSTER INFO"))["cluster_state"]


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder


async def test_a_cluster_counts_each_key_where_it_belongs(cluster: RedisStore) -> None:
    keys = [f"k{at}" for at in range(40)]

    for count in (1, 2, 3):
        tallies = await cluster.charge([hit(key) for key in keys])
        assert [tally.count for tally in tallies] == [count] * 40


async def test_in_a_cluster_a_refused_request_gives_back_what_other_slots_have_counted(cluster: RedisStore) -> None:
    job = Charge(key="job", limit=2, window_seconds=60, hits=1, algorithm=Algorithm.CONCURRENCY, lease_id="r1")
    charges = [hit("a"), hit("b"), hit("c", 9), job]

    tallies = await cluster.charge(charges, Charging.ALL_OR_NOTHING)

    assert [(tally.is_over, tally.count) for tally in tallies] == [(False, 0), (False, 0), (True, 0), (False, 0)]
    assert [tally.count for tally in await cluster.charge([hit("a"), hit("b"), hit("c"), job])] == [1, 1, 1, 1]


async def test_in_a_cluster_others_are_spared(cluster: RedisStore) -> None:
    tallies = await cluster.charge([hit("a"), hit("c", 9)], Charging.SPARE_OTHERS)

    assert [(tally.is_over, tally.count) for tally in tallies] == [(False, 0), (True, 9)]
