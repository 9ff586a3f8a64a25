"""The gRPC health service, asked over a real connection to each transport."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

import grpc
import grpc.aio
import pytest

from headgate.health import Health
from headgate.pb.health_pb2 import HealthCheckRequest, HealthCheckResponse
from headgate.transport import Server

PATIENCE_SECONDS = 20.0
SERVING = HealthCheckResponse.SERVING
NOT_SERVING = HealthCheckResponse.NOT_SERVING
UNKNOWN = HealthCheckResponse.SERVICE_UNKNOWN


class Client:
    """What a load balancer does with the service."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._check = channel.unary_unary("/grpc.health.v1.Health/Check")
        self._watch = channel.stream_stream("/grpc.health.v1.Health/Watch")

    async def check(self, name: str) -> HealthCheckResponse.ServingStatus:
        request = HealthCheckRequest(service=name).SerializeToString()
        return HealthCheckResponse.FromString(await self._check(request, timeout=PATIENCE_SECONDS)).status

    def watch(self, name: str) -> grpc.aio.StreamStreamCall:
        return self._watch(iter([HealthCheckRequest(service=name).SerializeToString()]), timeout=PATIENCE_SECONDS)

    async def check_bytes(self, request: bytes) -> bytes:
        return bytes(await self._check(request, timeout=PATIENCE_SECONDS))


@pytest.fixture
async def health() -> Health:
    return Health("envoy.service.ext_proc.v3.ExternalProcessor")


@pytest.fixture
async def client(health: Health, new_server: Callable[..., Server]) -> AsyncIterator[Client]:
    server = new_server("127.0.0.1:0", [health.service()], max_message_bytes=1 << 20)
    address = await server.start()
    async with grpc.aio.insecure_channel(address) as channel:
        yield Client(channel)
    await server.drain(0)


async def status_of(watch: grpc.aio.StreamStreamCall) -> HealthCheckResponse.ServingStatus:
    return HealthCheckResponse.FromString(await watch.read()).status


NAMES = ["", "readiness", "envoy.service.ext_proc.v3.ExternalProcessor"]


@pytest.mark.parametrize("name", NAMES)
async def test_a_service_serves_until_the_process_shuts_down(name: str, client: Client, health: Health) -> None:
    assert await client.check(name) == SERVING
    assert health.is_serving

    health.shut_down()

    assert await client.check(name) == NOT_SERVING
    assert not health.is_serving


async def test_the_process_is_alive_while_it_drains(client: Client, health: Health) -> None:
    assert await client.check("liveness") == SERVING

    health.shut_down()

    assert await client.check("liveness") == SERVING


async def test_a_service_nobody_knows_is_not_found(client: Client) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await client.check("unheard.of")

    assert caught.value.code() is grpc.StatusCode.NOT_FOUND
    assert caught.value.details() == "unknown service"


async def test_what_is_no_request_is_the_callers_fault(client: Client) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await client.check_bytes(b"\xff\xff")

    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


@pytest.mark.parametrize("name", NAMES)
async def test_a_watcher_is_told_at_once_and_again_when_the_process_shuts_down(
    name: str, client: Client, health: Health
) -> None:
    watch = client.watch(name)
    assert await status_of(watch) == SERVING

    health.shut_down()

    assert await status_of(watch) == NOT_SERVING
    assert await watch.read() is grpc.aio.EOF


async def test_a_watcher_is_told_when_a_service_becomes_ready_and_when_it_no_longer_is(
    client: Client, health: Health
) -> None:
    ready: list[bool] = []
    health.follow(NAMES[-1], lambda: bool(ready))
    watch = client.watch(NAMES[-1])
    assert await status_of(watch) == NOT_SERVING

    ready.append(True)
    assert await status_of(watch) == SERVING
    ready.clear()
    assert await status_of(watch) == NOT_SERVING
    assert not watch.done()


async def test_a_watcher_of_a_service_nobody_knows_is_told_so_and_kept(client: Client) -> None:
    watch = client.watch("unheard.of")

    assert await status_of(watch) == UNKNOWN
    assert not watch.done()


async def test_a_watcher_that_comes_late_hears_the_end_at_once(client: Client, health: Health) -> None:
    health.shut_down()

    watch = client.watch("")

    assert await status_of(watch) == NOT_SERVING


async def test_a_watcher_that_leaves_keeps_nobody_waiting(client: Client, health: Health) -> None:
    watch = client.watch("")
    await status_of(watch)
    watch.cancel()

    health.shut_down()

    async with asyncio.timeout(PATIENCE_SECONDS):
        assert await client.check("") == NOT_SERVING
