"""The reference transport, called by a real gRPC client."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import grpc.aio
import pytest

from headgate.transport import RpcError, Send, Service, StatusCode, StreamHandler, UnaryHandler
from headgate.transport.grpcio import GrpcioServer

PATIENCE_SECONDS = 20.0
MAX_MESSAGE_BYTES = 64 * 1024


class Serving:
    """A server with one method `/test.Service/Method`, and a client of it."""

    def __init__(self, server: GrpcioServer, channel: grpc.aio.Channel) -> None:
        self.server = server
        options = {"timeout": PATIENCE_SECONDS}
        unary, stream = channel.unary_unary("/test.Service/Method"), channel.stream_stream("/test.Service/Method")
        self.other = lambda message: channel.unary_unary("/test.Service/Other")(message, **options)
        self.ask: Callable[[bytes], grpc.aio.UnaryUnaryCall] = lambda message: unary(message, **options)
        self.stream: Callable[[], grpc.aio.StreamStreamCall] = lambda: stream(**options)


@asynccontextmanager
async def serving(
    *, unary: UnaryHandler | None = None, stream: StreamHandler | None = None, address: str = "127.0.0.1:0"
) -> AsyncIterator[Serving]:
    service = Service(
        name="test.Service",
        unary={"Method": unary} if unary else {},
        streams={"Method": stream} if stream else {},
    )
    server = GrpcioServer(address, [service], max_message_bytes=MAX_MESSAGE_BYTES)
    bound = await server.start()
    async with grpc.aio.insecure_channel(bound) as channel:
        yield Serving(server, channel)
    await server.drain(0)


async def status_of(call: grpc.aio.UnaryUnaryCall | grpc.aio.StreamStreamCall) -> tuple[grpc.StatusCode, str]:
    return await call.code(), await call.details()


async def reverse(message: bytes) -> bytes:
    return message[::-1]


async def echo(messages: AsyncIterator[bytes], send: Send) -> None:
    async for message in messages:
        await send(message)


async def test_a_message_is_answered_with_a_message() -> None:
    async with serving(unary=reverse) as served:
        assert await served.ask(b"abc") == b"cba"
        assert await served.ask(b"") == b""


async def test_many_calls_are_answered_at_once() -> None:
    arrived = 0
    all_here = asyncio.Event()

    async def wait_for_the_others(message: bytes) -> bytes:
        nonlocal arrived
        arrived += 1
        if arrived == 200:
            all_here.set()
        await all_here.wait()
        return message

    async with serving(unary=wait_for_the_others) as served:
        answers = await asyncio.gather(*(served.ask(str(i).encode()) for i in range(200)))

    assert answers == [str(i).encode() for i in range(200)]


async def test_messages_of_a_stream_are_answered_in_turn_until_the_client_half_closes() -> None:
    async with serving(stream=echo) as served:
        call = served.stream()
        for message in (b"one", b"two"):
            await call.write(message)
            assert await call.read() == message
        await call.done_writing()

        assert await call.read() is grpc.aio.EOF
        assert await status_of(call) == (grpc.StatusCode.OK, "")


async def test_a_handler_that_returns_ends_the_stream_well_while_the_client_would_still_talk() -> None:
    async def answer_once(messages: AsyncIterator[bytes], send: Send) -> None:
        await send(await anext(messages))

    async with serving(stream=answer_once) as served:
        call = served.stream()
        await call.write(b"hello")

        assert await call.read() == b"hello"
        assert await call.read() is grpc.aio.EOF
        assert await call.code() is grpc.StatusCode.OK


@pytest.mark.parametrize("code", [code for code in StatusCode if code is not StatusCode.OK])
async def test_an_error_of_a_handler_is_the_status_of_the_call(code: StatusCode) -> None:
    async def fail(message: bytes) -> bytes:
        raise RpcError(code, f"because of {message.decode()}")

    async with serving(unary=fail) as served:
        call = served.ask(b"x")

        status, details = await status_of(call)

    assert (status.value[0], details) == (code.value, "because of x")


async def test_an_error_in_a_stream_comes_after_what_was_sent_before_it() -> None:
    async def send_and_fail(messages: AsyncIterator[bytes], send: Send) -> None:
        await send(b"first")
        raise RpcError(StatusCode.RESOURCE_EXHAUSTED, "enough")

    async with serving(stream=send_and_fail) as served:
        call = served.stream()

        assert await call.read() == b"first"
        assert await status_of(call) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "enough")


async def test_a_bug_in_a_handler_ends_its_call_and_no_other(caplog: pytest.LogCaptureFixture) -> None:
    async def stumble(message: bytes) -> bytes:
        return bytes([1 // len(message)])

    with caplog.at_level(logging.CRITICAL, logger="grpc._cython.cygrpc"):
        async with serving(unary=stumble) as served:
            assert await served.ask(b"").code() is grpc.StatusCode.UNKNOWN
            assert await served.ask(b"x") == b"\x01"


async def test_a_method_nobody_serves_is_unimplemented() -> None:
    async with serving(unary=reverse) as served:
        assert await served.other(b"x").code() is grpc.StatusCode.UNIMPLEMENTED


async def test_a_message_larger_than_the_limit_is_refused_and_the_next_one_is_not() -> None:
    async with serving(unary=reverse) as served:
        assert await served.ask(bytes(MAX_MESSAGE_BYTES + 1)).code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert len(await served.ask(bytes(MAX_MESSAGE_BYTES))) == MAX_MESSAGE_BYTES


async def test_a_client_that_leaves_reaches_the_handlers_finally() -> None:
    left = asyncio.Event()

    async def hold(messages: AsyncIterator[bytes], send: Send) -> None:
        try:
            await send(b"holding")
            async for _ in messages:
                pass
        finally:
            left.set()

    async with serving(stream=hold) as served:
        call = served.stream()
        assert await call.read() == b"holding"

        call.cancel()

        async with asyncio.timeout(PATIENCE_SECONDS):
            await left.wait()


async def test_draining_lets_open_calls_end_by_themselves_and_takes_no_new_ones() -> None:
    may_end = asyncio.Event()
    begun = asyncio.Event()

    async def take_time(message: bytes) -> bytes:
        begun.set()
        await may_end.wait()
        return b"done"

    async with serving(unary=take_time) as served:
        call = served.ask(b"")
        waiting = asyncio.create_task(status_of(call))
        async with asyncio.timeout(PATIENCE_SECONDS):
            await begun.wait()

        draining = asyncio.create_task(served.server.drain(PATIENCE_SECONDS))
        late = served.ask(b"")
        # Which of the two depends on whether the call or the server's GOAWAY is first on the wire.
        assert await late.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)
        may_end.set()
        await draining

        assert await call == b"done"
        assert await waiting == (grpc.StatusCode.OK, "")


async def test_a_call_that_does_not_end_is_cancelled_when_the_grace_is_over() -> None:
    was_cancelled = asyncio.Event()

    async def never_end(messages: AsyncIterator[bytes], send: Send) -> None:
        await send(b"begun")
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            was_cancelled.set()
            raise

    async with serving(stream=never_end) as served:
        call = served.stream()
        assert await call.read() == b"begun"

        async with asyncio.timeout(PATIENCE_SECONDS):
            await served.server.drain(0.01)
            await was_cancelled.wait()

        assert await call.code() is not grpc.StatusCode.OK


async def test_a_server_listens_on_a_unix_socket(tmp_path: Path) -> None:
    address = f"unix:{tmp_path / 'grpc.sock'}"

    async with serving(unary=reverse, address=address) as served:
        assert await served.ask(b"abc") == b"cba"


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("192.0.2.1:1", "Cannot assign requested address"),
        ("unix:/proc/no/such/folder/socket", "No such file or directory"),
    ],
)
async def test_an_address_that_cannot_be_used_is_refused_with_the_reason(address: str, reason: str) -> None:
    with pytest.raises(OSError) as caught:
        await GrpcioServer(address, [], max_message_bytes=MAX_MESSAGE_BYTES).start()

    assert str(caught.value) == f"cannot listen on {address}: {reason}"


async def test_a_port_in_use_is_refused_with_the_reason() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"

        with pytest.raises(OSError) as caught:
            await GrpcioServer(address, [], max_message_bytes=MAX_MESSAGE_BYTES).start()

    assert str(caught.value) == f"cannot listen on {address}: Address already in use"
