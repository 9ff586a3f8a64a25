"""The client's end of an HTTP/2 connection, written apart from the server's: in memory, or over a socket."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

import hpack

from headgate.transport import Call, Conversation, OpenConversation
from headgate.transport.lean.connection import Connection
from headgate.transport.lean.header_blocks import RememberedHeads
from headgate.transport.lean.limits import Limits

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
KINDS = [
    *("DATA", "HEADERS", "PRIORITY", "RST_STREAM", "SETTINGS"),
    *("PUSH_PROMISE", "PING", "GOAWAY", "WINDOW_UPDATE", "CONTINUATION"),
]
CALL = {
    ":method": "POST",
    ":scheme": "http",
    ":path": "/test.Echo/Talk",
    ":authority": "test",
    "te": "trailers",
    "content-type": "application/grpc",
}


@dataclass(frozen=True)
class Frame:
    kind: str
    stream: int
    flags: int
    payload: bytes

    @property
    def is_end(self) -> bool:
        return self.kind in ("DATA", "HEADERS") and bool(self.flags & 1)

    @property
    def error(self) -> int:
        """The code of a RST_STREAM or GOAWAY."""
        return int.from_bytes(self.payload[-4:] if self.kind == "RST_STREAM" else self.payload[4:8], "big")


def frame(kind: str | int, stream: int = 0, payload: bytes = b"", flags: int = 0) -> bytes:
    number = KINDS.index(kind) if isinstance(kind, str) else kind
    return struct.pack(">I", len(payload))[1:] + bytes((number, flags)) + struct.pack(">I", stream) + payload


def message(content: bytes, *, flag: int = 0) -> bytes:
    return bytes((flag,)) + struct.pack(">I", len(content)) + content


def settings(**values: int) -> bytes:
    names = {"header_table_size": 1, "enable_push": 2, "initial_window_size": 4, "max_frame_size": 5}
    return frame("SETTINGS", payload=b"".join(struct.pack(">HI", names[name], value) for name, value in values.items()))


class Reader:
    """Frames out of a server's bytes."""

    def __init__(self) -> None:
        self._rest = b""
        self.decoder = hpack.Decoder()

    def frames(self, data: bytes) -> list[Frame]:
        self._rest += data
        found = []
        while len(self._rest) >= 9:
            size = int.from_bytes(self._rest[:3], "big")
            if len(self._rest) < 9 + size:
                break
            stream = int.from_bytes(self._rest[5:9], "big")
            found.append(Frame(KINDS[self._rest[3]], stream, self._rest[4], self._rest[9 : 9 + size]))
            self._rest = self._rest[9 + size :]
        return found

    def headers(self, headers: Frame) -> dict[str, str]:
        return dict(self.decoder.decode(headers.payload))


@dataclass
class Talk:
    """A conversation that writes down what happens to it."""

    call: Call
    log: list[str | bytes] = field(default_factory=list)

    def receive(self, message: bytes) -> None:
        self.log.append(message)

    def ended(self) -> None:
        self.log.append("half-closed" if self.call.is_open else "gone")


class Peer:
    """A client on a connection in memory; `now` is whatever the test says."""

    def __init__(
        self,
        limits: Limits,
        open_conversation: OpenConversation | None = None,
        remembered: RememberedHeads | None = None,
    ) -> None:
        self.talks: list[Talk] = []
        methods = {"/test.Echo/Talk": open_conversation or self._open}
        self.connection = Connection(methods, limits, remembered or RememberedHeads())
        self.reader = Reader()
        self.encoder = hpack.Encoder()
        self.encoder.header_table_size = 0
        self.now = 0.0
        self._next_stream = 1

    def greet(self, **values: int) -> None:
        """Preface and settings both ways; what the server sends is read and thrown away."""
        self.send(PREFACE + settings(**values) + frame("SETTINGS", flags=1))

    def send(self, data: bytes) -> list[Frame]:
        """Give the server bytes; what it answers."""
        self.connection.receive(data, self.now)
        return self.frames()

    def frames(self) -> list[Frame]:
        """What the server has sent since the last time."""
        return self.reader.frames(self.connection.outbox.take())

    def headers(self, **extra: str | None) -> bytes:
        """A block that starts a call; names as arguments, `None` leaves one out."""
        named = {name.replace("pseudo_", ":").replace("_", "-"): value for name, value in extra.items()}
        fields = [(name, value) for name, value in (CALL | named).items() if value is not None]
        return self.encoder.encode(fields)

    def open(self, *, end: bool = False, **extra: str | None) -> int:
        """Start a call; its stream."""
        stream, self._next_stream = self._next_stream, self._next_stream + 2
        self.connection.receive(frame("HEADERS", stream, self.headers(**extra), 5 if end else 4), self.now)
        return stream

    def messages(self, stream: int) -> bytes:
        """What the server has sent on a stream since the last time, without frames."""
        return b"".join(answer.payload for answer in self.frames() if (answer.kind, answer.stream) == ("DATA", stream))

    def _open(self, call: Call) -> Conversation:
        talk = Talk(call)
        self.talks.append(talk)
        return talk
