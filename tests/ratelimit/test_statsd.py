"""Statistics on real sockets, in the reference's names."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest

from ratelimit.statsd import MAX_TIMES, StatsdReporter, packed
from ratelimit.statsd_settings import StatsdProtocol, StatsdSettings, TagStyle

PATIENCE_SECONDS = 10.0
HITS = "ratelimit.service.rate_limit.shop.user.total_hits"


@dataclass
class Listener:
    """A statsd that keeps what it hears, over TCP."""

    heard: bytearray = field(default_factory=bytearray)
    connections: int = 0
    ended: int = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        while data := await reader.read(65536):
            self.heard += data
        writer.close()
        await writer.wait_closed()
        self.ended += 1

    async def gone(self) -> None:
        """Wait until all who called have hung up."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            while self.ended < self.connections:  # noqa: ASYNC110  (a count in another task)
                await asyncio.sleep(0.002)

    async def lines(self, at_least: int) -> list[str]:
        async with asyncio.timeout(PATIENCE_SECONDS):
            while self.heard.count(b"\n") < at_least:  # noqa: ASYNC110  (bytes counted in another task)
                await asyncio.sleep(0.002)
        return self.heard.decode().splitlines()


def reporter(port: int, counts: dict[str, int], **rest: object) -> StatsdReporter:
    settings = StatsdSettings(host="127.0.0.1", port=port, **rest)  # type: ignore[arg-type]
    return StatsdReporter(settings, counts.items)


async def test_what_was_added_since_the_last_report_is_a_counter_over_tcp() -> None:
    listener, counts = Listener(), {HITS: 3, "zero": 0}
    server = await asyncio.start_server(listener.serve, "127.0.0.1", 0)
    found = reporter(server.sockets[0].getsockname()[1], counts, tags={"b": "x.y", "a": "1"})

    await found.report()
    counts[HITS] = 5
    await found.report()
    await found.report()
    found.observe_seconds(0.00125)
    await found.close()

    assert await listener.lines(3) == [
        f"{HITS}.__a=1.__b=x_y:3|c",
        f"{HITS}.__a=1.__b=x_y:2|c",
        "ratelimit_server.ShouldRateLimit.response_time.__a=1.__b=x_y:1.250000|ms",
    ]
    assert listener.connections == 1
    await listener.gone()
    server.close()
    await server.wait_closed()


async def test_a_statsd_that_comes_late_or_again_hears_everything_that_was_missed(
    caplog: pytest.LogCaptureFixture,
) -> None:
    counts = {HITS: 3}
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    found = reporter(port, counts)
    await found.report()
    counts[HITS] = 5
    await found.report()
    assert [record.message for record in caplog.records] == ["statistics cannot be sent to statsd"]

    listener = Listener()
    server = await asyncio.start_server(listener.serve, "127.0.0.1", port)
    await found.report()

    assert await listener.lines(1) == [f"{HITS}:5|c"]
    await found.close()
    await listener.gone()
    server.close()
    await server.wait_closed()


@pytest.fixture
def datagrams() -> Iterator[socket.socket]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver:
        receiver.bind(("127.0.0.1", 0))
        receiver.settimeout(PATIENCE_SECONDS)
        yield receiver


async def test_datagrams_hold_whole_lines_and_fit_into_a_packet(datagrams: socket.socket) -> None:
    counts = {f"{HITS}{at}": at for at in range(1, 60)}
    found = reporter(datagrams.getsockname()[1], counts, protocol=StatsdProtocol.UDP)

    await found.report()

    lines: list[str] = []
    while len(lines) < 59:
        packet = (await asyncio.to_thread(datagrams.recv, 65536)).decode()
        assert len(packet) <= 1432
        lines += packet.splitlines()
    assert lines == [f"{name}:{count}|c" for name, count in counts.items()]


async def test_dogstatsd_has_its_tags_behind_the_value(datagrams: socket.socket) -> None:
    tags = {"env": "prod", "az": "1"}
    found = reporter(
        datagrams.getsockname()[1], {HITS: 1}, protocol=StatsdProtocol.UDP, tag_style=TagStyle.DOG, tags=tags
    )

    await found.report()

    assert await asyncio.to_thread(datagrams.recv, 65536) == f"{HITS}:1|c|#az:1,env:prod\n".encode()


async def test_a_flood_of_calls_does_not_fill_the_memory(datagrams: socket.socket) -> None:
    found = reporter(datagrams.getsockname()[1], {}, protocol=StatsdProtocol.UDP)
    for _ in range(MAX_TIMES + 10):
        found.observe_seconds(0.001)

    assert len(found._times) == MAX_TIMES


def test_a_line_longer_than_a_packet_travels_alone() -> None:
    assert list(packed([b"aa\n", b"bb\n", b"c" * 9, b"d\n"], 6)) == [b"aa\nbb\n", b"c" * 9, b"d\n"]
