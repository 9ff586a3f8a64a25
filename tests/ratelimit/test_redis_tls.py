"""Redis behind TLS: who is believed, and that nothing is ever said in the clear."""

import asyncio
import json
import os
import ssl
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import httpx
import pytest
import redis.asyncio
import trustme

from headgate.errors import SettingsError, StoreUnavailable
from headgate.redis.connection import connect
from ratelimit.assembly import redis_store
from ratelimit.charges import Charge
from ratelimit.guarded import GuardedStore
from ratelimit.memory import MemoryStore
from ratelimit.settings import read_ratelimit_settings

PATIENCE_SECONDS = 20.0
PASSWORD = "secret"
CLIENT = ("REDIS_TLS_CLIENT_CERT", "REDIS_TLS_CLIENT_KEY")
UNHURRIED = {"HEADGATE_RATELIMIT_REDIS_DEADLINE": "5s"}
HANDSHAKE = b"\x16\x03"
FILE = """
domain: shop
descriptors:
  - {key: user, rate_limit: {unit: year, requests_per_unit: 2}}
  - {key: open, rate_limit: {unit: year, requests_per_unit: 2}, headgate: {on_store_failure: open}}
"""


@dataclass
class Relay:
    """A port, and the first bytes that each of its callers sent."""

    port: int = 0
    heard: list[bytes] = field(default_factory=list)


@asynccontextmanager
async def relay(target_port: int, context: ssl.SSLContext | None = None) -> AsyncIterator[Relay]:
    """Pass bytes on, either way; with a context it ends TLS."""
    found = Relay()
    calls: set[asyncio.Task[Any]] = set()

    async def passing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        calls.add(asyncio.current_task())  # type: ignore[arg-type]
        first = await _read(reader)
        found.heard.append(first)
        there_reader, there_writer = await asyncio.open_connection("127.0.0.1", target_port)
        there_writer.write(first)
        try:
            await asyncio.gather(_copy(reader, there_writer), _copy(there_reader, writer))
        finally:
            there_writer.close()
            writer.close()

    server = await asyncio.start_server(passing, "127.0.0.1", 0, ssl=context)
    found.port = server.sockets[0].getsockname()[1]
    try:
        yield found
    finally:
        server.close()
        for call in calls:
            call.cancel()
        await asyncio.gather(*calls, return_exceptions=True)


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await _read(reader):
        writer.write(data)
    # The other direction ends as well, once its peer has seen this one end.
    writer.close()


async def _read(reader: asyncio.StreamReader) -> bytes:
    try:
        return await reader.read(65536)
    except OSError:
        return b""


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def files(authority: trustme.CA, tmp_path: Path) -> dict[str, str]:
    """The settings that name the CA, and apart from it a client's certificate."""
    client = authority.issue_cert("headgate.test")
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    client.cert_chain_pems[0].write_to_path(tmp_path / "client.pem")
    client.private_key_pem.write_to_path(tmp_path / "client.key")
    return {
        "REDIS_TLS_CACERT": str(tmp_path / "ca.pem"),
        "REDIS_TLS_CLIENT_CERT": str(tmp_path / "client.pem"),
        "REDIS_TLS_CLIENT_KEY": str(tmp_path / "client.key"),
    }


def server_side(authority: trustme.CA, name: str = "127.0.0.1", *, asks_client: bool = False) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(name).configure_cert(context)
    if asks_client:
        context.verify_mode = ssl.CERT_REQUIRED
        authority.configure_trust(context)
    return context


@pytest.fixture
def behind(redis_server: Any) -> Callable[..., Any]:
    """Start a Redis with a password, a TLS end before it, and before that a listener on the wire."""
    redis_server.options = ("--requirepass", PASSWORD)
    redis_server.start()

    @asynccontextmanager
    async def begin(context: ssl.SSLContext) -> AsyncIterator[Relay]:
        async with relay(redis_server.port, context) as end, relay(end.port) as wire:
            yield wire
            assert wire.heard
            assert all(first.startswith(HANDSHAKE) for first in wire.heard)

    return begin


@asynccontextmanager
async def store(wire: Relay, files: dict[str, str], *left_out: str, **variables: str) -> AsyncIterator[GuardedStore]:
    given = {name: value for name, value in files.items() if name not in left_out}
    where = {"REDIS_URL": f"127.0.0.1:{wire.port}", "REDIS_AUTH": PASSWORD, "REDIS_TLS": "true"}
    settings = read_ratelimit_settings(where | given | variables)
    found = redis_store(settings, MemoryStore(lambda: 1_000_000.0))
    try:
        yield found
    finally:
        await found.close()


@pytest.fixture
def cas_read(monkeypatch: pytest.MonkeyPatch) -> list[ssl.SSLContext]:
    """The contexts made, each of which reads the system's CAs; that takes longer than a call's default deadline."""
    made: list[ssl.SSLContext] = []
    create = ssl.create_default_context

    def counted(*arguments: Any, **options: Any) -> ssl.SSLContext:
        made.append(create(*arguments, **options))
        return made[-1]

    monkeypatch.setattr(ssl, "create_default_context", counted)
    return made


def hit() -> Charge:
    return Charge(key="k", limit=2, window_seconds=3600, hits=1)


async def admitted(found: GuardedStore) -> int:
    """Of four calls at once, each on a connection of its own."""
    answers = await asyncio.gather(*(found.charge([hit()]) for _ in range(4)))
    return [tally.is_over for (tally,) in answers].count(False)


async def is_refused(found: GuardedStore, server: Any) -> bool:
    """Whether neither the probe nor a call gets through, and nothing has been counted."""
    await found.probe()
    with pytest.raises(StoreUnavailable):
        await found.charge([hit()])
    async with redis.asyncio.Redis(port=server.port, password=PASSWORD) as client:
        return not found.is_answering and await client.dbsize() == 0


async def test_limits_hold_over_tls(
    behind: Callable[..., Any], authority: trustme.CA, files: dict[str, str], cas_read: list[ssl.SSLContext]
) -> None:
    async with behind(server_side(authority)) as wire, store(wire, files, *CLIENT, **UNHURRIED) as found:
        assert await admitted(found) == 2
    assert (len(wire.heard), len(cas_read)) == (4, 1)


async def test_the_urls_scheme_asks_for_tls(
    behind: Callable[..., Any], authority: trustme.CA, files: dict[str, str]
) -> None:
    async with behind(server_side(authority)) as wire:
        url = f"rediss://127.0.0.1:{wire.port}"
        async with store(wire, files, *CLIENT, **UNHURRIED, REDIS_TLS="false", REDIS_URL=url) as found:
            assert await admitted(found) == 2


@pytest.mark.parametrize("skips", ["true", "false"])
async def test_an_unknown_ca_is_refused(
    behind: Callable[..., Any], files: dict[str, str], redis_server: Any, skips: str
) -> None:
    skipping = {"REDIS_TLS_SKIP_HOSTNAME_VERIFICATION": skips}
    async with behind(server_side(trustme.CA())) as wire, store(wire, files, **UNHURRIED, **skipping) as found:
        assert await is_refused(found, redis_server)


async def test_a_wrong_host_name_is_refused_unless_it_is_not_to_be_checked(
    behind: Callable[..., Any], authority: trustme.CA, files: dict[str, str], redis_server: Any
) -> None:
    async with behind(server_side(authority, "redis.elsewhere.test")) as wire:
        async with store(wire, files, **UNHURRIED) as found:
            assert await is_refused(found, redis_server)
        async with store(wire, files, REDIS_TLS_SKIP_HOSTNAME_VERIFICATION="true", **UNHURRIED) as found:
            assert await admitted(found) == 2


async def test_a_client_certificate_is_shown_to_who_asks_for_it(
    behind: Callable[..., Any], authority: trustme.CA, files: dict[str, str], redis_server: Any
) -> None:
    async with behind(server_side(authority, asks_client=True)) as wire:
        async with store(wire, files, *CLIENT, **UNHURRIED) as found:
            assert await is_refused(found, redis_server)
        async with store(wire, files, **UNHURRIED) as found:
            assert await admitted(found) == 2


async def test_sentinels_and_their_master_are_asked_over_tls(
    authority: trustme.CA, files: dict[str, str], redis_server: Any, tmp_path: Path, cas_read: list[ssl.SSLContext]
) -> None:
    redis_server.start()
    config = tmp_path / "sentinel.conf"
    sentinel = type(redis_server)(redis_server.free_port(), ("--sentinel",), config=config)
    context = server_side(authority)
    async with relay(redis_server.port, context) as master, relay(sentinel.port, context) as end:
        # The sentinel itself speaks no TLS: it must not find out about its master before the test is over.
        watched = f"sentinel monitor main 127.0.0.1 {master.port} 1\nsentinel down-after-milliseconds main 600000\n"
        config.write_text(watched)
        sentinel.start()
        try:
            asked = {"REDIS_TYPE": "SENTINEL", "REDIS_URL": f"main,127.0.0.1:{end.port}", "REDIS_AUTH": ""}
            async with store(end, files, *CLIENT, **UNHURRIED, **asked) as found:
                assert await admitted(found) == 2
        finally:
            sentinel.kill()
    assert (len(master.heard), len(cas_read)) == (4, 1)


async def test_a_cluster_is_asked_over_tls(
    authority: trustme.CA, files: dict[str, str], redis_server: Any, tmp_path: Path, cas_read: list[ssl.SSLContext]
) -> None:
    async with relay(redis_server.port, server_side(authority)) as end:
        announced = ("--cluster-announce-ip", "127.0.0.1", "--cluster-announce-port", str(end.port))
        redis_server.options = ("--cluster-enabled", "yes", "--dir", str(tmp_path), *announced)
        redis_server.start()
        async with redis.asyncio.Redis(port=redis_server.port, decode_responses=True) as client:
            await client.execute_command("CLUSTER ADDSLOTS", *range(16384))
            async with asyncio.timeout(PATIENCE_SECONDS):
                state = ""
                while state != "ok":
                    await asyncio.sleep(0.02)
                    state = (await client.execute_command("CLUSTER INFO"))["cluster_state"]
        async with store(end, files, *CLIENT, **UNHURRIED, REDIS_TYPE="CLUSTER", REDIS_AUTH="") as found:
            assert await admitted(found) == 2
    assert (len(end.heard) > 1, len(cas_read)) == (True, 1)


async def test_every_node_of_a_cluster_is_asked_over_tls(
    authority: trustme.CA, files: dict[str, str], redis_server: Any, tmp_path: Path, cas_read: list[ssl.SSLContext]
) -> None:
    nodes = [type(redis_server)(redis_server.free_port()) for _ in range(2)]
    async with AsyncExitStack() as stack:
        ends = []
        for at, node in enumerate(nodes):
            end = await stack.enter_async_context(relay(node.port, server_side(authority)))
            (tmp_path / str(at)).mkdir()
            own = ("--cluster-enabled", "yes", "--dir", str(tmp_path / str(at)), "--cluster-announce-ip", "127.0.0.1")
            bus = ("--cluster-announce-bus-port", str(node.port + 10_000))
            node.options = (*own, "--cluster-announce-port", str(end.port), *bus)
            node.start()
            stack.callback(node.kill)
            ends.append(end)
        await _joined(nodes)
        asked = {"REDIS_TYPE": "CLUSTER", "REDIS_AUTH": ""}
        async with store(ends[0], files, *CLIENT, **UNHURRIED, **asked) as found:
            tallies = await found.charge([replace(hit(), key=f"k{at}") for at in range(40)])
    assert [tally.count for tally in tallies] == [1] * 40
    assert [bool(end.heard) for end in ends] == [True, True]
    assert len(cas_read) == 1


async def _joined(nodes: Sequence[Any]) -> None:
    """Make two nodes one cluster, each with half of the slots, and wait until both know it."""
    for at, node in enumerate(nodes):
        async with redis.asyncio.Redis(port=node.port) as client:
            await client.execute_command("CLUSTER ADDSLOTS", *range(at * 8192, (at + 1) * 8192))
            await client.execute_command("CLUSTER SET-CONFIG-EPOCH", at + 1)
    first, second = nodes
    async with redis.asyncio.Redis(port=first.port) as client:
        await client.execute_command("CLUSTER MEET", "127.0.0.1", second.port, second.port + 10_000)
    for node in nodes:
        async with redis.asyncio.Redis(port=node.port, decode_responses=True) as client:
            async with asyncio.timeout(PATIENCE_SECONDS):
                state = ""
                while state != "ok" or len(await client.execute_command("CLUSTER SLOTS")) < 2:
                    await asyncio.sleep(0.02)
                    state = (await client.execute_command("CLUSTER INFO"))["cluster_state"]


async def test_limits_per_second_have_a_tls_of_their_own(
    authority: trustme.CA, files: dict[str, str], redis_server: Any
) -> None:
    redis_server.start()
    async with (
        relay(redis_server.port) as plain,
        relay(redis_server.port, server_side(authority)) as end,
        relay(end.port) as wire,
    ):
        own = {"REDIS_PERSECOND": "true", "REDIS_PERSECOND_TLS": "true"}
        where = {"REDIS_TLS": "false", "REDIS_AUTH": "", "REDIS_PERSECOND_URL": f"127.0.0.1:{wire.port}"}
        async with store(plain, files, *CLIENT, **UNHURRIED, **own, **where) as found:
            assert await admitted(found) == 2
            assert not wire.heard
            await found.charge([replace(hit(), window_seconds=1)])
    assert all(first.startswith(b"*") for first in plain.heard)
    assert [first[:2] for first in wire.heard] == [HANDSHAKE]


@pytest.mark.parametrize("kind", ["SINGLE", "SENTINEL", "CLUSTER"])
@pytest.mark.parametrize("name", ["REDIS_TLS_CACERT", "REDIS_TLS_CLIENT_CERT", "REDIS_TLS_CLIENT_KEY"])
def test_a_file_that_cannot_be_read_is_said_at_once(files: dict[str, str], name: str, kind: str) -> None:
    missing = {name: files[name] + ".missing"}
    given = {"REDIS_TLS": "true", "REDIS_TYPE": kind, "REDIS_URL": "main,127.0.0.1:1" if kind == "SENTINEL" else ":1"}

    with pytest.raises(SettingsError, match=name):
        connect(read_ratelimit_settings(files | given | missing).redis)


async def test_the_service_starts_and_is_not_ready_with_a_redis_it_does_not_trust(
    behind: Callable[..., Any], files: dict[str, str], redis_server: Any, tmp_path: Path
) -> None:
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "shop.yaml").write_text(FILE)
    async with behind(server_side(trustme.CA())) as wire, running(wire, files, tmp_path) as (service, until_heard):
        await until_heard("the store gives no answer")

        assert (await service.get("/healthcheck")).status_code == 500
        assert (await ask(service, "user")).status_code == 400
        assert [(await ask(service, "open")).status_code for _ in range(3)] == [200] * 3
        async with redis.asyncio.Redis(port=redis_server.port, password=PASSWORD) as client:
            assert await client.dbsize() == 0


async def ask(service: httpx.AsyncClient, key: str) -> httpx.Response:
    body = {"domain": "shop", "descriptors": [{"entries": [{"key": key, "value": "x"}]}]}
    return await service.post("/json", json=body)


@asynccontextmanager
async def running(wire: Relay, files: dict[str, str], folder: Path) -> AsyncIterator[Any]:
    """`python -m ratelimit` as a process: a client of its HTTP port, and a way to wait for a line of its log."""
    redis_at = {"REDIS_URL": f"127.0.0.1:{wire.port}", "REDIS_AUTH": PASSWORD, "REDIS_TLS": "true"}
    ports = {"GRPC_PORT": "0", "PORT": "0", "DEBUG_PORT": "0", "HEADGATE_ADMIN_ADDRESS": "127.0.0.1:0"}
    own = {"RUNTIME_ROOT": str(folder), "REDIS_HEALTH_CHECK_ACTIVE_CONNECTION": "true"}
    environment = dict(os.environ) | redis_at | ports | own | files
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "ratelimit", env=environment, stderr=asyncio.subprocess.PIPE
    )
    assert process.stderr is not None
    log = process.stderr

    async def until_heard(message: str) -> dict[str, str]:
        async with asyncio.timeout(PATIENCE_SECONDS):
            while True:
                entry: dict[str, str] = json.loads(await log.readline())
                if entry["message"] == message:
                    return entry

    try:
        address = (await until_heard("serving"))["http"]
        async with httpx.AsyncClient(base_url=f"http://{address}", timeout=PATIENCE_SECONDS) as client:
            yield client, until_heard
    finally:
        process.terminate()
        await process.communicate()
