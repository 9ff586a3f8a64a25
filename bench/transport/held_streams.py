"""Many streams open and silent on one connection: what each of them keeps in the server, and what they cost it."""

from __future__ import annotations

import socket
import struct
import time
from dataclasses import dataclass

import hpack

from bench.resources import cpu_seconds, resident_bytes
from bench.transport.noop import EXT_PROC

_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_HEADERS, _SETTINGS, _WINDOW_UPDATE, _DATA = 0x1, 0x4, 0x8, 0x0
_ACK, _END_HEADERS = 0x1, 0x4
_LARGE_WINDOW = struct.pack(">I", 2**30)
_HEADER_BYTES = 9
# The headers message of a chat request, as Envoy sends it, is about this long.
_MESSAGE = b"\x12" + bytes(599)
_PATIENCE_SECONDS = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldStreams:
    """What was seen while they were open.

    Attributes:
        bytes_per_open_stream: growth of the server's resident memory over the number of streams.
        idle_cpu_percent: of a core, over the time in which nothing was sent.
    """

    streams: int
    bytes_per_open_stream: float
    idle_cpu_percent: float


def hold_streams(address: str, pid: int, streams: int, idle_seconds: float) -> HeldStreams:
    """Open the streams, each with one message answered, then do nothing.

    Raises:
        OSError: the server does not answer.
    """
    host, _, port = address.rpartition(":")
    with socket.create_connection((host, int(port)), timeout=_PATIENCE_SECONDS) as connection:
        connection.sendall(_PREFACE + _frame(_SETTINGS, 0, 0) + _frame(_SETTINGS, _ACK, 0))
        connection.sendall(_frame(_WINDOW_UPDATE, 0, 0, _LARGE_WINDOW))
        # A first stream, so that what is allocated once is not counted.
        _open(connection, range(1, 3, 2))
        before = resident_bytes(pid)
        _open(connection, range(3, 2 * streams + 3, 2))
        during = resident_bytes(pid)
        cpu_before = cpu_seconds(pid)
        time.sleep(idle_seconds)
        idle_cpu = cpu_seconds(pid) - cpu_before
    return HeldStreams(
        streams=streams,
        bytes_per_open_stream=(during - before) / streams,
        idle_cpu_percent=idle_cpu / idle_seconds * 100,
    )


def _open(connection: socket.socket, streams: range) -> None:
    block = _block()
    message = struct.pack(">BI", 0, len(_MESSAGE)) + _MESSAGE
    for start in range(0, len(streams), 100):
        some = streams[start : start + 100]
        connection.sendall(
            b"".join(_frame(_HEADERS, _END_HEADERS, one, block) + _frame(_DATA, 0, one, message) for one in some)
        )
        _await_answers(connection, len(some))


def _await_answers(connection: socket.socket, count: int) -> None:
    rest = b""
    while count:
        data = connection.recv(65_536)
        if not data:
            raise ConnectionResetError("the server has hung up")
        rest += data
        while len(rest) >= _HEADER_BYTES:
            end = _HEADER_BYTES + int.from_bytes(rest[:3], "big")
            if len(rest) < end:
                break
            count -= rest[3] == _DATA
            rest = rest[end:]


def _block() -> bytes:
    encoder = hpack.Encoder()
    encoder.header_table_size = 0
    names = {":method": "POST", ":scheme": "http", ":path": f"/{EXT_PROC}/Process", ":authority": "bench"}
    return encoder.encode(list((names | {"te": "trailers", "content-type": "application/grpc"}).items()))


def _frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return struct.pack(">IBI", len(payload) << 8 | kind, flags, stream) + payload
