"""What the lean server does with sockets: peers that are silent, slow, broken or many."""

from __future__ import annotations

import asyncio
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from headgate.transport import Call, Conversation, Service
from headgate.transport.lean import LeanServer, protocol
from headgate.transport.tls import Tls
from tests.headgate.transport.peer import CALL, PREFACE, Reader, frame, message, settings
from tests.headgate.transport.peer import Frame as PeerFrame

PATIENCE_SECONDS = 20.0
BLOCK = b"".join(
    b"\x00" + bytes((len(name),)) + name.encode() + bytes((len(value),)) + value.encode()
    for name, value in CALL.items()
)
ROOM = frame("WINDOW_UPDATE", 0, struct.pack(">I", 2**30))


class Echo:
    """Open conversations, counted."""

    open_total = 0
    changed: asyncio.Event

    def __init__(self, call: Call) -> None:
        self._call = call
        Echo.open_total += 1
        Echo.changed.set()

    def receive(self, message: bytes) -> None:
        if message == b"large":
            for _ in range(64):
                self._call.send(bytes(1 << 20))
        else:
            self._call.send(message)

    def ended(self) -> None:
        Echo.open_total -= 1
        Echo.changed.set()
        self._call.finish()


class Client:
    """A client on a socket."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._bytes = reader
        self.writer = writer
        self._frames = Reader()
        self._seen: list[PeerFrame] = []

    @classmethod
    async def connect(cls, address: str) -> Client:
        host, _, port = address.rpartition(":")
        client = cls(*await asyncio.open_connection(host, int(port)))
        client.writer.write(PREFACE + settings() + frame("SETTINGS", flags=1) + ROOM)
        return client

    async def until(self, is_wanted: Callable[[PeerFrame], bool], count: int = 1) -> list[PeerFrame]:
        """Read until this many wanted frames have come."""
        wanted: list[PeerFrame] = []
        async with asyncio.timeout(PATIENCE_SECONDS):
            while len(wanted) < count:
                data = await self._bytes.read(1 << 18)
                assert data, "the server has hung up"
                wanted += [found for found in self._frames.frames(data) if is_wanted(found)]
        return wanted

    async def is_hung_up(self) -> bool:
        async with asyncio.timeout(PATIENCE_SECONDS):
            try:
                while await self._bytes.read(1 << 18):
                    pass
            except ConnectionResetError:
                pass
        return True

    async def close(self) -> None:
        self.writer.close()
        try:
            await self.writer.wait_closed()
        except OSError:
            pass  # the server was faster


def is_data(found: PeerFrame) -> bool:
    return found.kind == "DATA"


@pytest.fixture
async def address() -> AsyncIterator[str]:
    Echo.open_total = 0
    Echo.changed = asyncio.Event()
    service = Service(name="test.Echo", conversations={"Talk": open_echo})
    server = LeanServer("127.0.0.1:0", [service], max_message_bytes=1 << 20)
    yield await server.start()
    await server.drain(0)


def open_echo(call: Call) -> Conversation:
    return Echo(call)


async def calls_open(count: int) -> None:
    """Wait until this many are."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while Echo.open_total != count:
            Echo.changed.clear()
            await Echo.changed.wait()


async def test_ten_thousand_streams_are_open_at_once_on_one_connection(address: str) -> None:
    client = await Client.connect(address)
    count = 10_000
    for number in range(count):
        stream = 2 * number + 1
        client.writer.write(frame("HEADERS", stream, BLOCK, 4) + frame("DATA", stream, message(b"hi")))
    answers = await client.until(is_data, count)

    assert Echo.open_total == count
    # This test, and the fixture that serves: a conversation needs no task.
    assert len(asyncio.all_tasks()) <= 2
    assert {answer.stream for answer in answers} == set(range(1, 2 * count, 2))
    for number in range(count):
        client.writer.write(frame("DATA", 2 * number + 1, b"", 1))
    assert len(await client.until(lambda found: found.kind == "HEADERS" and found.is_end, count)) == count
    assert Echo.open_total == 0
    await client.close()


async def test_a_thousand_connections_are_served_at_once(address: str) -> None:
    clients = [await Client.connect(address) for _ in range(1000)]
    for client in clients:
        client.writer.write(frame("HEADERS", 1, BLOCK, 4) + frame("DATA", 1, message(b"hi")))
    for client in clients:
        [answer] = await client.until(is_data)
        assert answer.payload == message(b"hi")

    assert Echo.open_total == 1000
    for client in clients:
        await client.close()
    await calls_open(0)


async def test_answers_of_one_turn_leave_in_one_write(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    writes: list[int] = []
    original = protocol.LeanProtocol._flush

    def flush(self: protocol.LeanProtocol) -> None:
        writes.append(len(self.connection.outbox.parts))
        original(self)

    client = await Client.connect(address)
    await client.until(lambda found: found.kind == "SETTINGS" and bool(found.flags & 1))
    monkeypatch.setattr(protocol.LeanProtocol, "_flush", flush)
    calls = b"".join(
        frame("HEADERS", stream, BLOCK, 4) + frame("DATA", stream, message(b"hi")) for stream in range(1, 101, 2)
    )
    client.writer.write(calls)
    await client.until(is_data, 50)

    assert len([count for count in writes if count]) == 1
    await client.close()


async def test_a_peer_that_does_not_read_is_read_no_more_and_then_cut_off(
    address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(protocol, "_STALLED_SECONDS", 0.2)
    host, _, port = address.rpartition(":")
    with socket.create_connection((host, int(port))) as slow:
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        slow.sendall(PREFACE + settings(initial_window_size=2**30) + ROOM)
        slow.sendall(frame("HEADERS", 1, BLOCK, 4) + frame("DATA", 1, message(b"large")))
        await calls_open(1)
        await calls_open(0)


async def test_a_peer_that_says_nothing_is_cut_off(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "_GREETING_SECONDS", 0.05)
    reader, writer = await asyncio.open_connection(*address.rsplit(":", 1))
    client = Client(reader, writer)

    assert await client.is_hung_up()
    await client.close()


def ask_after(monkeypatch: pytest.MonkeyPatch, *, seconds: float, patience_seconds: float) -> None:
    monkeypatch.setattr(protocol, "_GREETING_SECONDS", 0.05)
    monkeypatch.setattr(protocol, "_KEEPALIVE_SECONDS", seconds)
    monkeypatch.setattr(protocol, "_KEEPALIVE_PATIENCE_SECONDS", patience_seconds)


async def test_a_peer_that_answers_no_ping_is_cut_off_and_its_calls_end(
    address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, seconds in (
        ("_GREETING_SECONDS", 0.05),
        ("_KEEPALIVE_SECONDS", 0.1),
        ("_KEEPALIVE_PATIENCE_SECONDS", 0.1),
    ):
        monkeypatch.setattr(protocol, name, seconds)
    client = await Client.connect(address)
    client.writer.write(frame("HEADERS", 1, BLOCK, 4))
    [ping] = await client.until(lambda found: found.kind == "PING")
    assert Echo.open_total == 1
    assert await client.is_hung_up()
    await calls_open(0)
    assert not ping.flags
    await client.close()


async def test_a_peer_that_answers_pings_is_kept(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, seconds in (
        ("_GREETING_SECONDS", 0.05),
        ("_KEEPALIVE_SECONDS", 0.1),
        ("_KEEPALIVE_PATIENCE_SECONDS", 0.5),
    ):
        monkeypatch.setattr(protocol, name, seconds)
    client = await Client.connect(address)
    for _ in range(3):
        [ping] = await client.until(lambda found: found.kind == "PING")
        client.writer.write(frame("PING", 0, ping.payload, 1))
    client.writer.write(frame("HEADERS", 1, BLOCK, 4) + frame("DATA", 1, message(b"hi")))

    assert [found.payload for found in await client.until(is_data)] == [message(b"hi")]
    await client.close()


async def test_a_faulty_peer_learns_why_before_the_connection_is_closed(address: str) -> None:
    client = await Client.connect(address)
    # More than the server has read when it finds the fault: a careless close would reset the connection.
    client.writer.write(frame("PING", 0, bytes(5)) + bytes(1 << 20))

    [goaway] = await client.until(lambda found: found.kind == "GOAWAY")
    assert goaway.error == 6
    assert await client.is_hung_up()
    await client.close()


async def test_a_peer_that_closes_its_side_ends_its_calls(address: str) -> None:
    client = await Client.connect(address)
    client.writer.write(frame("HEADERS", 1, BLOCK, 4) + frame("DATA", 1, message(b"hi")))
    await client.until(is_data)
    client.writer.write_eof()

    assert await client.is_hung_up()
    await calls_open(0)
    await client.close()


async def test_tls_without_http2_is_refused(certificates: Path) -> None:
    tls = Tls(certificate=certificates / "server.pem", key=certificates / "server.key")
    server = LeanServer("127.0.0.1:0", [], max_message_bytes=1000, tls=tls)
    host, _, port = (await server.start()).rpartition(":")
    ours = ssl.create_default_context(cafile=str(certificates / "authority.pem"))
    reader, writer = await asyncio.open_connection(host, int(port), ssl=ours)
    assert await Client(reader, writer).is_hung_up()
    writer.close()
    await writer.wait_closed()
    ours.set_alpn_protocols(["h2"])
    reader, writer = await asyncio.open_connection(host, int(port), ssl=ours)
    client = Client(reader, writer)
    writer.write(PREFACE + settings())
    await client.until(lambda found: found.kind == "SETTINGS" and bool(found.flags & 1))
    await client.close()
    await server.drain(1)


async def test_a_dead_socket_is_replaced_and_a_live_one_or_a_file_is_not(tmp_path: Path) -> None:
    dead, live, plain = tmp_path / "dead", tmp_path / "live", tmp_path / "plain"
    with socket.socket(socket.AF_UNIX) as left_behind:
        left_behind.bind(str(dead))
    plain.write_text("")
    server = LeanServer(f"unix:{dead}", [], max_message_bytes=1000)
    assert await server.start() == f"unix:{dead}"
    await server.drain(0)

    with socket.socket(socket.AF_UNIX) as alive:
        alive.bind(str(live))
        alive.listen()
        for taken in (live, plain):
            with pytest.raises(OSError, match="cannot listen on unix:"):
                await LeanServer(f"unix:{taken}", [], max_message_bytes=1000).start()


async def test_an_address_that_is_none_is_an_error() -> None:
    with pytest.raises(OSError, match="not host:port"):
        await LeanServer("nonsense", [], max_message_bytes=1000).start()
