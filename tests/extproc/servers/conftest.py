"""A model server on a real socket that says what a test tells it to, as fast or slowly as it likes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field, replace

import pytest

from headgate.policy.model import Cluster, Frontend, MetricsAddress, Policy, Protocol

TIMEOUT_SECONDS = 10.0


@dataclass(slots=True)
class ScriptedServer:
    """Pages by path; a path without one is a 404. While `silence` is set nothing is answered at all."""

    pages: dict[str, str] = field(default_factory=dict)
    status: int = 200
    address: str = ""
    asked: list[str] = field(default_factory=list)
    silence: bool = False
    listening: asyncio.Server | None = None
    open: set[asyncio.StreamWriter] = field(default_factory=set)

    async def listen(self) -> None:
        """Be there, at the same address as before."""
        port = int(self.address.rpartition(":")[2] or 0)
        self.listening = await asyncio.start_server(self.answer, "127.0.0.1", port)
        self.address = f"127.0.0.1:{self.listening.sockets[0].getsockname()[1]}"

    def close(self) -> None:
        """Be gone: refuse connections, and hang up on those there are."""
        if self.listening is not None:
            self.listening.close()
        for writer in self.open:
            writer.close()

    @property
    def place(self) -> MetricsAddress:
        return MetricsAddress(self.address)

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.open.add(writer)
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                path = head.split(b" ", 2)[1].decode()
                self.asked.append(path)
                while self.silence:  # noqa: ASYNC110  (a test sets it from outside the loop's turn)
                    await asyncio.sleep(0.01)
                body = self.pages.get(path, "").encode()
                status = self.status if path in self.pages else 404
                writer.write(b"HTTP/1.1 %d Said\r\ncontent-length: %d\r\n\r\n" % (status, len(body)) + body)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self.open.discard(writer)
            writer.close()


@pytest.fixture
async def start_server() -> AsyncIterator[Callable[..., Awaitable[ScriptedServer]]]:
    started: list[ScriptedServer] = []

    async def start(**pages: str) -> ScriptedServer:
        scripted = ScriptedServer({f"/{path.replace('__', '/')}": page for path, page in pages.items()})
        await scripted.listen()
        started.append(scripted)
        return scripted

    yield start
    for scripted in started:
        scripted.close()


@pytest.fixture
def serving(policy: Policy) -> Callable[..., Policy]:
    """The policy with clusters whose metrics are at these places; their model is `best` unless told otherwise."""

    def with_clusters(model: str = "best", **places: list[MetricsAddress]) -> Policy:
        clusters = {
            name: Cluster(
                name=name,
                frontends={
                    Protocol.TRITON: Frontend(
                        protocol=Protocol.TRITON, model=model, endpoints=("127.0.0.1:1",), envoy_cluster=name
                    )
                },
                metrics=tuple(metrics),
            )
            for name, metrics in places.items()
        }
        return replace(policy, clusters=clusters)

    return with_clusters


@pytest.fixture
def until() -> Callable[[Callable[[], object]], Awaitable[None]]:
    """Wait until something holds."""

    async def wait(holds: Callable[[], object]) -> None:
        async with asyncio.timeout(TIMEOUT_SECONDS):
            while not holds():  # noqa: ASYNC110  (anything may be waited for)
                await asyncio.sleep(0.005)

    return wait
