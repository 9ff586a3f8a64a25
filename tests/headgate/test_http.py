"""The small HTTP server: on any free port, refusing a taken one, stopping without losing an answer."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from headgate import http
from headgate.http import HttpServer

PATIENCE_SECONDS = 20.0


class Application:
    """`/` answers at once, `/slow` when told to."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()
        self.may_answer = asyncio.Event()
        self.starlette = Starlette(routes=[Route("/", self._now), Route("/slow", self._slow)])

    async def _now(self, request: Request) -> Response:
        return PlainTextResponse("here")

    async def _slow(self, request: Request) -> Response:
        self.asked.set()
        await self.may_answer.wait()
        return PlainTextResponse("at last")


@pytest.fixture
async def application() -> Application:
    return Application()


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(timeout=PATIENCE_SECONDS) as client:
        yield client


@pytest.fixture
def taken_port() -> Iterator[int]:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        yield listening.getsockname()[1]


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
async def test_port_zero_takes_a_free_port_and_tells_which(
    host: str, application: Application, client: httpx.AsyncClient
) -> None:
    server = HttpServer(f"{host}:0", application.starlette)

    address = await server.start()
    answer = await client.get(f"http://{address}/")
    await server.stop()

    assert address.startswith(f"{host}:")
    assert (answer.status_code, answer.text) == (200, "here")


async def test_a_taken_port_is_refused_with_the_reason(taken_port: int, application: Application) -> None:
    server = HttpServer(f"127.0.0.1:{taken_port}", application.starlette)

    with pytest.raises(OSError, match=rf"^cannot listen on 127\.0\.0\.1:{taken_port}: Address already in use$"):
        await server.start()
    await server.stop()


async def test_a_host_that_is_not_of_this_machine_is_refused(application: Application) -> None:
    with pytest.raises(OSError, match=r"^cannot listen on 192\.0\.2\.1:1: Cannot assign requested address$"):
        await HttpServer("192.0.2.1:1", application.starlette).start()


async def test_a_server_that_never_started_stops_at_once(application: Application) -> None:
    await HttpServer("127.0.0.1:0", application.starlette).stop()


async def test_the_port_is_free_again_after_a_stop(application: Application) -> None:
    first = HttpServer("127.0.0.1:0", application.starlette)
    address = await first.start()
    await first.stop()

    second = HttpServer(address, application.starlette)
    assert await second.start() == address
    await second.stop()


async def test_a_stop_waits_for_the_answer_that_is_under_way(
    application: Application, client: httpx.AsyncClient
) -> None:
    server = HttpServer("127.0.0.1:0", application.starlette)
    address = await server.start()
    asking = asyncio.create_task(client.get(f"http://{address}/slow"))
    async with asyncio.timeout(PATIENCE_SECONDS):
        await application.asked.wait()

    stopping = asyncio.create_task(server.stop())
    asyncio.get_running_loop().call_later(0.01, application.may_answer.set)
    async with asyncio.timeout(PATIENCE_SECONDS):
        answer, _ = await asyncio.gather(asking, stopping)

    assert answer.text == "at last"


async def test_a_stop_does_not_wait_for_a_request_that_never_ends(
    application: Application, client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http, "STOP_SECONDS", 0.05)
    server = HttpServer("127.0.0.1:0", application.starlette)
    address = await server.start()
    asking = asyncio.create_task(client.get(f"http://{address}/slow"))

    async with asyncio.timeout(PATIENCE_SECONDS):
        await application.asked.wait()
        await server.stop()
        answer = await asking

    assert answer.status_code == 500


async def test_an_idle_connection_does_not_hold_up_a_stop(application: Application) -> None:
    server = HttpServer("127.0.0.1:0", application.starlette)
    host, _, port = (await server.start()).rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))

    async with asyncio.timeout(PATIENCE_SECONDS):
        await server.stop()
        assert await reader.read() == b""
    writer.close()
    await writer.wait_closed()
