"""Both transports behind the same interface, called by a real gRPC client: what one does the other does."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import grpc
import grpc.aio
import pytest

from headgate.transport import Call, ConnectionAge, Conversation, RpcError, Send, Server, Service, StatusCode
from headgate.transport.grpcio import GrpcioServer
from headgate.transport.lean import LeanServer

PATIENCE_SECONDS = 20.0
MAX_MESSAGE_BYTES = 6 * 1024 * 1024
UNARY = ("Function", "Unary")
STREAMS = ("Conversation", "Stream")
CLIENT_OPTIONS = [("grpc.max_receive_message_length", -1)]
NewServer = Callable[..., Server]
SERVERS: dict[str, NewServer] = {"lean": LeanServer, "grpcio": GrpcioServer}


@dataclass
class Echo:
    """Sends back what it gets, in all four kinds of method; `log` says how each call went."""

    log: list[str] = field(default_factory=list)
    holding: asyncio.Event = field(default_factory=asyncio.Event)
    logged: asyncio.Event = field(default_factory=asyncio.Event)

    def released(self) -> None:
        self.log.append("released")
        self.logged.set()

    def service(self) -> Service:
        return Service(
            name="test.Echo",
            unary={"Unary": self.unary, "Hold": self.hold},
            functions={"Function": self.function},
            streams={"Stream": self.stream, "HoldStream": self.hold_stream},
            conversations={"Conversation": self.open, "HoldConversation": self.open_holding},
        )

    def function(self, message: bytes) -> bytes:
        if message == b"refuse":
            raise RpcError(StatusCode.NOT_FOUND, "not here: ä%")
        if message == b"fail":
            raise KeyError(message)
        return message

    async def unary(self, message: bytes) -> bytes:
        return self.function(message)

    async def hold(self, message: bytes) -> bytes:
        self.holding.set()
        try:
            await asyncio.Event().wait()
        finally:
            self.released()
        return message

    async def stream(self, messages: AsyncIterator[bytes], send: Send) -> None:
        try:
            async for message in messages:
                await send(self.function(message))
        finally:
            self.released()

    async def hold_stream(self, messages: AsyncIterator[bytes], send: Send) -> None:
        try:
            async for message in messages:
                await send(message)
            await asyncio.Event().wait()
        finally:
            self.released()

    def open(self, call: Call) -> Conversation:
        return EchoConversation(self, call)

    def open_holding(self, call: Call) -> Conversation:
        return EchoConversation(self, call, is_holding=True)


@dataclass
class EchoConversation:
    echo: Echo
    call: Call
    is_holding: bool = False

    def receive(self, message: bytes) -> None:
        if message == b"metadata":
            self.call.send(repr(sorted((k, v) for k, v in self.call.metadata if k.startswith("x-"))).encode())
        elif message == b"stop":
            self.call.send(b"stopped")
            self.call.finish(StatusCode.INVALID_ARGUMENT, "enough")
        else:
            self.call.send(self.echo.function(message))
        self.echo.holding.set()

    def ended(self) -> None:
        self.echo.released()
        if not self.is_holding:
            self.call.finish()


@dataclass
class Serving:
    echo: Echo
    server: Server
    address: str
    channel: grpc.aio.Channel

    def ask(self, method: str, message: bytes, **options: object) -> grpc.aio.UnaryUnaryCall:
        options = {"timeout": PATIENCE_SECONDS, **options}
        return self.channel.unary_unary(f"/test.Echo/{method}")(message, **options)

    def stream(self, method: str, **options: object) -> grpc.aio.StreamStreamCall:
        options = {"timeout": PATIENCE_SECONDS, **options}
        return self.channel.stream_stream(f"/test.Echo/{method}")(**options)

    async def logged(self, count: int) -> list[str]:
        async with asyncio.timeout(PATIENCE_SECONDS):
            while len(self.echo.log) < count:
                self.echo.logged.clear()
                await self.echo.logged.wait()
        return self.echo.log


@asynccontextmanager
async def serving(new_server: NewServer, address: str = "127.0.0.1:0") -> AsyncIterator[Serving]:
    echo = Echo()
    server = new_server(address, [echo.service()], max_message_bytes=MAX_MESSAGE_BYTES)
    bound = await server.start()
    async with grpc.aio.insecure_channel(bound, options=CLIENT_OPTIONS) as channel:
        yield Serving(echo, server, bound, channel)
    await server.drain(0)


@pytest.fixture(params=SERVERS)
def new_server(request: pytest.FixtureRequest) -> NewServer:
    return SERVERS[request.param]


@pytest.fixture
async def served(new_server: NewServer) -> AsyncIterator[Serving]:
    async with serving(new_server) as one:
        yield one


@pytest.mark.parametrize("method", UNARY)
async def test_a_message_is_answered_with_a_message(served: Serving, method: str) -> None:
    for message in (b"hi", b"", b"x" * (4 << 20)):
        assert await served.ask(method, message) == message


@pytest.mark.parametrize("method", UNARY)
@pytest.mark.parametrize(
    ("message", "expected"),
    [(b"refuse", (grpc.StatusCode.NOT_FOUND, "not here: ä%")), (b"fail", (grpc.StatusCode.UNKNOWN, None))],
    ids=["refused", "failed"],
)
async def test_a_unary_handler_that_raises_answers_with_a_status(
    served: Serving, method: str, message: bytes, expected: tuple[grpc.StatusCode, str | None]
) -> None:
    call = served.ask(method, message)

    assert await call.code() is expected[0]
    if expected[1] is not None:
        assert await call.details() == expected[1]
    assert await served.ask(method, b"next") == b"next"


@pytest.mark.parametrize("method", STREAMS)
async def test_a_stream_answers_message_by_message_until_the_half_close(served: Serving, method: str) -> None:
    call = served.stream(method)
    for message in (b"one", b"", b"x" * (4 << 20), b"four"):
        await call.write(message)
        assert await call.read() == message
    await call.done_writing()

    assert await call.read() is grpc.aio.EOF
    assert await call.code() is grpc.StatusCode.OK
    assert await served.logged(1) == ["released"]


@pytest.mark.parametrize("method", STREAMS)
async def test_messages_written_at_once_are_all_answered_in_their_order(served: Serving, method: str) -> None:
    async def numbers() -> AsyncIterator[bytes]:
        for number in range(300):
            yield b"%d" % number * 100

    call = served.channel.stream_stream(f"/test.Echo/{method}")(numbers(), timeout=PATIENCE_SECONDS)

    assert [message async for message in call] == [b"%d" % number * 100 for number in range(300)]


@pytest.mark.parametrize("method", STREAMS)
async def test_a_stream_handler_that_raises_ends_its_stream_with_a_status(served: Serving, method: str) -> None:
    call = served.stream(method)
    await call.write(b"refuse")

    assert await call.code() is grpc.StatusCode.NOT_FOUND
    assert await call.details() == "not here: ä%"
    assert await served.logged(1) == ["released"]


async def test_a_conversation_may_finish_first(served: Serving) -> None:
    call = served.stream("Conversation")
    await call.write(b"stop")

    assert await call.read() == b"stopped"
    assert (await call.code(), await call.details()) == (grpc.StatusCode.INVALID_ARGUMENT, "enough")
    assert await served.logged(1) == ["released"]


async def test_a_conversation_sees_the_metadata(served: Serving) -> None:
    call = served.stream("Conversation", metadata=(("x-tenant", "acme"), ("x-key-bin", b"\x00\xff")))
    await call.write(b"metadata")

    assert await call.read() == repr([("x-key-bin", b"\x00\xff"), ("x-tenant", "acme")]).encode()
    call.cancel()


@pytest.mark.parametrize("method", ["HoldStream", "HoldConversation"])
@pytest.mark.parametrize("phase", ["first_answer", "half_closed"])
async def test_a_cancelled_stream_releases_what_it_holds(served: Serving, method: str, phase: str) -> None:
    call = served.stream(method)
    await call.write(b"hi")
    assert await call.read() == b"hi"
    if phase == "half_closed":
        await call.done_writing()
    call.cancel()

    assert await served.logged(1) == ["released"]


async def test_a_cancelled_unary_call_releases_what_it_holds(served: Serving) -> None:
    call = served.ask("Hold", b"hi")
    async with asyncio.timeout(PATIENCE_SECONDS):
        await served.echo.holding.wait()
    call.cancel()

    assert await served.logged(1) == ["released"]


@pytest.mark.parametrize("method", ["Hold", "HoldStream", "HoldConversation"])
async def test_a_deadline_that_passes_releases_what_the_call_holds(served: Serving, method: str) -> None:
    call = served.ask(method, b"hi", timeout=0.1)

    assert await call.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert await served.logged(1) == ["released"]


@pytest.mark.parametrize("method", [*UNARY, *STREAMS])
async def test_a_message_larger_than_the_limit_is_refused(served: Serving, method: str) -> None:
    call = served.ask(method, b"x" * (MAX_MESSAGE_BYTES + 1))

    assert await call.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert await served.ask(method, b"next") == b"next"


async def test_compressed_messages_are_understood(served: Serving) -> None:
    for compression in (grpc.Compression.Gzip, grpc.Compression.Deflate):
        async with grpc.aio.insecure_channel(served.address, compression=compression) as channel:
            assert await channel.unary_unary("/test.Echo/Function")(b"hi" * 5000) == b"hi" * 5000


async def test_what_is_not_served_is_unimplemented(served: Serving) -> None:
    assert await served.ask("Nothing", b"").code() is grpc.StatusCode.UNIMPLEMENTED


async def test_a_synchronous_client_is_served(served: Serving) -> None:
    def ask() -> bytes:
        with grpc.insecure_channel(served.address) as channel:
            [answer] = channel.stream_stream("/test.Echo/Conversation")(iter([b"sync"]), timeout=PATIENCE_SECONDS)
            return bytes(answer)

    assert await asyncio.to_thread(ask) == b"sync"


async def test_a_drain_lets_open_calls_end_and_takes_no_new_ones(new_server: NewServer) -> None:
    async with serving(new_server) as served:
        call = served.stream("Conversation")
        await call.write(b"before")
        assert await call.read() == b"before"
        draining = asyncio.create_task(served.server.drain(PATIENCE_SECONDS))
        await asyncio.sleep(0)
        await call.write(b"during")
        assert await call.read() == b"during"
        assert not draining.done()
        await call.done_writing()

        assert await call.code() is grpc.StatusCode.OK
        await draining
        with pytest.raises(OSError):
            socket.create_connection(tuple(served.address.rsplit(":", 1)), timeout=1.0)


async def test_a_drain_cancels_what_has_not_ended_in_time(new_server: NewServer) -> None:
    async with serving(new_server) as served:
        call = served.stream("HoldStream")
        await call.write(b"hi")
        assert await call.read() == b"hi"
        await call.done_writing()
        await served.server.drain(0.05)

        assert await call.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)
        assert await served.logged(1) == ["released"]


async def test_a_drain_without_calls_or_before_the_start_ends_at_once(new_server: NewServer) -> None:
    async with serving(new_server) as served:
        await served.ask("Function", b"")
        async with asyncio.timeout(0.9):
            await served.server.drain(PATIENCE_SECONDS)


async def test_a_unix_socket_is_served(new_server: NewServer, tmp_path: Path) -> None:
    async with serving(new_server, f"unix:{tmp_path}/socket") as served:
        assert served.address == f"unix:{tmp_path}/socket"
        assert await served.ask("Function", b"hi") == b"hi"


async def test_an_address_in_use_is_an_error(new_server: NewServer, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(OSError, match=f"cannot listen on {address}"):
            await new_server(address, [], max_message_bytes=1000).start()


@pytest.mark.parametrize("kind", SERVERS)
async def test_an_old_connection_is_cut_after_its_grace_and_the_next_call_is_served(kind: str) -> None:
    echo = Echo()
    age = ConnectionAge(seconds=0.1, grace_seconds=0.1)
    server = SERVERS[kind]("127.0.0.1:0", [echo.service()], max_message_bytes=MAX_MESSAGE_BYTES, max_age=age)
    address = await server.start()
    async with grpc.aio.insecure_channel(address) as channel:
        held = channel.stream_stream("/test.Echo/Stream")(timeout=PATIENCE_SECONDS)
        await held.write(b"one")
        assert await held.read() == b"one"

        assert await held.code() is grpc.StatusCode.UNAVAILABLE
        assert await channel.unary_unary("/test.Echo/Unary")(b"two", wait_for_ready=True) == b"two"
    await server.drain(1)


@pytest.mark.parametrize("kind", SERVERS)
async def test_a_connection_that_is_old_serves_its_open_call_to_the_end(kind: str) -> None:
    echo = Echo()
    age = ConnectionAge(seconds=0.1, grace_seconds=PATIENCE_SECONDS)
    server = SERVERS[kind]("127.0.0.1:0", [echo.service()], max_message_bytes=MAX_MESSAGE_BYTES, max_age=age)
    address = await server.start()
    async with grpc.aio.insecure_channel(address) as channel:
        held = channel.stream_stream("/test.Echo/Stream")(timeout=PATIENCE_SECONDS)
        await held.write(b"one")
        assert await held.read() == b"one"
        # The client has been asked to leave once it opens a second connection for its next call.
        for _ in range(50):
            await channel.unary_unary("/test.Echo/Unary")(b"two", wait_for_ready=True)
            await asyncio.sleep(0.01)
        await held.write(b"three")

        assert await held.read() == b"three"
        await held.done_writing()
        assert await held.code() is grpc.StatusCode.OK
    await server.drain(1)
