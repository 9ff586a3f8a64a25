"""The service behind each real gRPC server: batch after batch on one stream, and nothing that stops it but garbage."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable

import grpc
import grpc.aio
import pytest
import pytest_asyncio

from accesslog.service import AccessLogService
from headgate.pb import accesslog_pb2 as pb
from headgate.record import RecordFeed, RequestRecord
from headgate.transport import Server

# grpcio's poller outlives a test, so its event loop has to.
pytestmark = pytest.mark.asyncio(loop_scope="module")
METHOD = "/envoy.service.accesslog.v3.AccessLogService/StreamAccessLogs"
OPEN = Callable[[], grpc.aio.StreamStreamCall]


class Accounts:
    """Where reports go; a request of the tenant `broken` cannot be counted."""

    def __init__(self) -> None:
        self.records: list[RequestRecord] = []

    def report(self, record: RequestRecord) -> None:
        if record.tenant == "broken":
            raise ZeroDivisionError
        self.records.append(record)

    @property
    def ids(self) -> list[str]:
        return [record.request_id for record in self.records]


@pytest.fixture
def accounts() -> Accounts:
    return Accounts()


@pytest.fixture
def service(accounts: Accounts) -> AccessLogService:
    records = RecordFeed()
    records.follow(accounts.report)
    return AccessLogService(records)


@pytest_asyncio.fixture(loop_scope="module")
async def open_stream(service: AccessLogService, new_server: Callable[..., Server]) -> AsyncIterator[OPEN]:
    server = new_server("127.0.0.1:0", [service.service()], max_message_bytes=1 << 20)
    address = await server.start()
    async with grpc.aio.insecure_channel(address) as channel:
        yield lambda: channel.stream_stream(METHOD)()
    await server.drain(0)


@pytest.fixture
def requests(logged: Callable[..., pb.HTTPAccessLogEntry], batch: Callable[..., bytes]) -> Callable[..., bytes]:
    """A batch of requests with these ids; `tenant` is all of theirs."""

    def batch_of(*ids: str, tenant: str = "acme") -> bytes:
        return batch(*(logged(decision={"request_id": request_id, "tenant": tenant}) for request_id in ids))

    return batch_of


async def close(call: grpc.aio.StreamStreamCall) -> grpc.StatusCode:
    """Half-close and say how the stream ended; Envoy expects no answer, so there is none."""
    await call.done_writing()
    assert await call.read() is grpc.aio.EOF
    return await call.code()


async def test_every_request_of_every_batch_is_reported_in_order(
    open_stream: OPEN, accounts: Accounts, requests: Callable[..., bytes]
) -> None:
    call = open_stream()
    for message in (requests("a", "b"), requests(), requests("c")):
        await call.write(message)

    assert await close(call) is grpc.StatusCode.OK
    assert accounts.ids == ["a", "b", "c"]


async def test_two_envoys_stream_side_by_side(
    open_stream: OPEN, accounts: Accounts, requests: Callable[..., bytes]
) -> None:
    first, second = open_stream(), open_stream()
    await first.write(requests("a"))
    await second.write(requests("b"))

    assert [await close(call) for call in (first, second)] == [grpc.StatusCode.OK] * 2
    assert sorted(accounts.ids) == ["a", "b"]


async def test_a_request_that_cannot_be_counted_costs_the_others_nothing(
    open_stream: OPEN,
    accounts: Accounts,
    requests: Callable[..., bytes],
    logged: Callable[..., pb.HTTPAccessLogEntry],
    batch: Callable[..., bytes],
    caplog: pytest.LogCaptureFixture,
) -> None:
    mixed = [
        logged(decision={"request_id": name, "tenant": tenant})
        for name, tenant in (("a", "acme"), ("b", "broken"), ("c", "acme"))
    ]
    call = open_stream()
    await call.write(batch(*mixed))
    await call.write(requests("d"))

    assert await close(call) is grpc.StatusCode.OK
    assert accounts.ids == ["a", "c", "d"]
    assert [r.message for r in caplog.records if r.name == "headgate.record"] == ["a record could not be counted"]


@pytest.mark.parametrize("garbage", [b"\xff\xff\xff", b"GET / HTTP/1.1"])
async def test_garbage_ends_its_stream_and_no_other(
    open_stream: OPEN, accounts: Accounts, requests: Callable[..., bytes], garbage: bytes
) -> None:
    bad, good = open_stream(), open_stream()
    await bad.write(requests("a"))
    await bad.write(garbage)

    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await bad.read()
    assert raised.value.code() is grpc.StatusCode.INVALID_ARGUMENT

    await good.write(requests("b"))
    assert await close(good) is grpc.StatusCode.OK
    assert accounts.ids == ["a", "b"]


async def test_an_envoy_that_goes_away_leaves_what_it_said(
    open_stream: OPEN, accounts: Accounts, requests: Callable[..., bytes]
) -> None:
    call = open_stream()
    await call.write(requests("a"))
    deadline = time.monotonic() + 5.0
    while not accounts.ids and time.monotonic() < deadline:
        await call.write(requests())

    call.cancel()

    assert accounts.ids == ["a"]


async def test_draining_hears_the_last_records_and_then_ends_every_stream_normally(
    service: AccessLogService, open_stream: OPEN, accounts: Accounts, requests: Callable[..., bytes]
) -> None:
    quiet, busy = open_stream(), open_stream()
    for call in (quiet, busy):
        await call.write(requests("before"))
    deadline = time.monotonic() + 5.0
    while len(accounts.ids) < 2 and time.monotonic() < deadline:
        await busy.write(requests())

    service.drain()
    await busy.write(requests("last"))

    for call in (quiet, busy):
        assert await call.read() is grpc.aio.EOF
        assert await call.code() is grpc.StatusCode.OK
    assert accounts.ids == ["before", "before", "last"]
