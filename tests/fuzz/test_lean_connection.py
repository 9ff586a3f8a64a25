"""Random and damaged frames against the core of the lean transport, which may never raise, leak or end a call twice.

A bounded run is a test; `python tests/fuzz/test_lean_connection.py INPUTS [SEED]` goes on as long as it is told.
"""

from __future__ import annotations

import gzip
import logging
import random
import struct
import sys
import time
from collections.abc import Callable

import hpack

from headgate.transport import Call, Conversation, RpcError, StatusCode
from headgate.transport.lean.connection import Connection
from headgate.transport.lean.header_blocks import RememberedHeads
from headgate.transport.lean.limits import Limits

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
LIMITS = Limits(
    max_message_bytes=40_000,
    max_streams=6,
    kept_bytes=60_000,
    stream_window_bytes=5_000,
    connection_window_bytes=70_000,
)
HEADS = [
    {":method": "POST", ":scheme": "http", ":path": "/f.F/Talk", "content-type": "application/grpc", "te": "trailers"},
    {
        ":method": "POST",
        ":scheme": "http",
        ":path": "/f.F/Talk",
        "content-type": "application/grpc+proto",
        "a-bin": "x",
    },
    {
        ":method": "POST",
        ":scheme": "http",
        ":path": "/f.F/Talk",
        "content-type": "application/grpc",
        "grpc-encoding": "gzip",
    },
    {
        ":method": "POST",
        ":scheme": "http",
        ":path": "/f.F/Talk",
        "content-type": "application/grpc",
        "grpc-timeout": "5m",
    },
    {":method": "POST", ":scheme": "http", ":path": "/f.F/None", "content-type": "application/grpc"},
    {":method": "GET", ":scheme": "http", ":path": "/", "content-length": "12"},
    {":method": "GET", ":scheme": "http", ":path": "/"},
    {":method": "POST", ":path": "/f.F/Talk", "Bad": "x"},
]
MESSAGES = [b"", b"hi", b"refuse", b"fail", b"large", b"finish", b"pause", b"x" * 900, b"y" * 20_000]
ODD_NUMBERS = [0, 1, 2, 3, 5, 7, 9, 11, 13, 2**31 - 1, 2**31, 2**32 - 1]


class Talk:
    """Does what its messages say, and counts its end."""

    def __init__(self, call: Call) -> None:
        self.call = call
        self.ended_total = 0
        self.cancelled_total = 0
        call.on_cancelled(self.cancelled)

    def receive(self, message: bytes) -> None:
        assert not self.ended_total
        match message:
            case b"refuse":
                raise RpcError(StatusCode.NOT_FOUND, "ä")
            case b"fail":
                raise KeyError
            case b"large":
                self.call.send(bytes(90_000))
            case b"finish":
                self.call.finish()
            case b"pause":
                self.call.pause()
            case _:
                self.call.send(message)
                self.call.resume()

    def ended(self) -> None:
        self.ended_total += 1
        self.call.finish()

    def cancelled(self) -> None:
        self.cancelled_total += 1


class Script:
    """One random client."""

    def __init__(self, chance: random.Random) -> None:
        self._chance = chance
        self._encoder = hpack.Encoder()
        self._next = 1
        self._makers: list[Callable[[], bytes]] = [
            *[self.open] * 4,
            *[self.data] * 8,
            *(self.reset, self.settings, self.window, self.ping, self.priority, self.goaway),
            *(self.continuation, self.anything, self.trailers, self.trailers),
        ]

    def write(self) -> bytes:
        """The bytes of a whole connection, perhaps damaged."""
        chance = self._chance
        parts = [PREFACE, self.frame(4, 0, 0, b"")]
        if chance.random() < 0.8:
            parts.append(self.frame(4, 1, 0, b""))
            self._encoder.header_table_size = 0
        parts += [chance.choice(self._makers)() for _ in range(chance.randint(1, 14))]
        data = bytearray(b"".join(parts))
        if chance.random() < 0.25:
            for _ in range(chance.randint(1, 4)):
                data[chance.randrange(len(data))] = chance.randrange(256)
        if chance.random() < 0.1:
            del data[chance.randrange(len(data)) :]
        return bytes(data)

    def frame(self, kind: int, flags: int, stream: int, payload: bytes) -> bytes:
        size = len(payload) if self._chance.random() > 0.01 else self._chance.randrange(20_000)
        return struct.pack(">IBI", size << 8 & 0xFFFFFFFF | kind, flags, stream) + payload

    def stream(self) -> int:
        if self._chance.random() < 0.1:
            return self._chance.choice(ODD_NUMBERS)
        return max(1, self._next - 2 * self._chance.choice([1, 1, 1, 2, 3]))

    def open(self) -> bytes:
        chance = self._chance
        stream, self._next = self._next, self._next + 2
        block = self._encoder.encode(list(chance.choice(HEADS).items()))
        flags = chance.choice([4, 4, 4, 5, 0, 0x24, 0x0C])
        if flags & 8:
            block = b"\x02" + block + bytes(2)
        if flags & 0x20:
            block = struct.pack(">IB", chance.choice(ODD_NUMBERS), 1) + block
        if not flags & 4:
            cut = chance.randrange(len(block))
            last = self.frame(9, 4, stream, block[cut:])
            return self.frame(1, flags, stream, block[:cut]) + last
        return self.frame(1, flags, stream, block)

    def data(self) -> bytes:
        chance = self._chance
        content = chance.choice(MESSAGES)
        flag = chance.choice([0, 0, 0, 0, 1, 2])
        if flag == 1 and chance.random() < 0.7:
            content = gzip.compress(content, 1)
        message = struct.pack(">BI", flag, len(content)) + content
        stream, size = self.stream(), chance.choice([1, 4, 100, 4000, 16_384])
        pieces = [message[start : start + size] for start in range(0, min(len(message), 5 * size), size)]
        flags = [0] * (len(pieces) - 1) + [chance.choice([0, 0, 0, 1, 8])]
        return b"".join(self.frame(0, flag, stream, piece) for flag, piece in zip(flags, pieces, strict=True))

    def trailers(self) -> bytes:
        fields = self._chance.choice([[("x", "y")], [], [(":path", "/")], [("Bad", "x")]])
        return self.frame(1, self._chance.choice([5, 5, 4]), self.stream(), self._encoder.encode(fields))

    def reset(self) -> bytes:
        return self.frame(3, 0, self.stream(), struct.pack(">I", self._chance.randrange(14)))

    def settings(self) -> bytes:
        chance = self._chance
        pairs = [
            (chance.randrange(8), chance.choice([*ODD_NUMBERS, 16_384, 100_000])) for _ in range(chance.randrange(3))
        ]
        return self.frame(4, chance.choice([0, 0, 1]), 0, b"".join(struct.pack(">HI", *pair) for pair in pairs))

    def window(self) -> bytes:
        increment = self._chance.choice([1, 1000, 100_000, 2**31 - 1, 0])
        return self.frame(8, 0, self._chance.choice([0, self.stream()]), struct.pack(">I", increment))

    def ping(self) -> bytes:
        return self.frame(6, self._chance.choice([0, 1]), 0, self._chance.choice([bytes(8), b"draining"]))

    def priority(self) -> bytes:
        return self.frame(2, 0, self.stream(), struct.pack(">IB", self.stream(), 1))

    def goaway(self) -> bytes:
        return self.frame(7, 0, 0, bytes(8))

    def continuation(self) -> bytes:
        return self.frame(9, 4, self.stream(), b"\x82")

    def anything(self) -> bytes:
        chance = self._chance
        return self.frame(
            chance.randrange(256), chance.randrange(256), self.stream(), chance.randbytes(chance.randrange(40))
        )


def run(chance: random.Random) -> None:
    """One connection from its first byte to its end."""
    talks: list[Talk] = []

    def open_talk(call: Call) -> Conversation:
        talks.append(Talk(call))
        return talks[-1]

    connection = Connection({"/f.F/Talk": open_talk}, LIMITS, RememberedHeads())
    data = Script(chance).write()
    position, now, sent = 0, 0.0, b""
    while position < len(data):
        size = chance.choice([1, 9, 100, 1 << 16])
        connection.receive(data[position : position + size], now)
        position, now = position + size, now + 0.003
        match chance.randrange(30):
            case 0:
                connection.expire(now)
            case 1:
                connection.drain()
            case 2 if talks:
                chance.choice(talks).call.finish(StatusCode.INTERNAL, "now")
            case 3:
                sent += connection.outbox.take()
    sent += connection.outbox.take()
    check_frames(sent)
    connection.lost()
    check_end(connection, talks)


def check_frames(sent: bytes) -> None:
    """What the server sends is whole frames of a size every client takes."""
    while sent:
        assert len(sent) >= 9
        size = int.from_bytes(sent[:3], "big")
        assert sent[3] in (0, 1, 3, 4, 6, 7, 8)
        assert len(sent) >= 9 + size
        sent = sent[9 + size :]


def check_end(connection: Connection, talks: list[Talk]) -> None:
    """Nothing is left, and every conversation has ended once."""
    assert connection.open_streams == 0
    assert connection.outbox.kept_bytes == 0
    assert not connection.outbox.blocked
    assert connection._streams.kept_bytes == 0
    assert all(talk.ended_total == 1 and talk.cancelled_total <= 1 and not talk.call.is_open for talk in talks)


def fuzz(inputs: int, seed: int) -> None:
    """Run so many connections; one that fails is named by its seed."""
    for number in range(seed, seed + inputs):
        try:
            run(random.Random(number))
        except Exception as error:
            raise AssertionError(f"input {number} fails") from error


def test_three_thousand_random_connections_break_nothing() -> None:
    fuzz(3000, seed=0)


if __name__ == "__main__":
    logging.disable()
    asked, first = int(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 0
    started_at = time.monotonic()
    fuzz(asked, first)
    print(f"{asked} inputs from seed {first}: nothing broke, {time.monotonic() - started_at:.0f} s")
