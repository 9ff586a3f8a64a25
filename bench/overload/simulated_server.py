"""`python -m bench.overload.simulated_server`: one replica of the SIMULATED cluster as an HTTP/1.1 server.

`POST /v1/chat/completions`, `GET /health`, and `GET /record` for what it wrote down of every request.
"""

from __future__ import annotations

import argparse
import asyncio
import signal

import msgspec

from bench.overload.http_head import Head, read_head
from bench.overload.simulated_answer import DONE, STREAM_HEAD, Wanted, chunk, piece, reply, whole
from bench.overload.simulated_engine import EngineShape, SimulatedSequence
from bench.overload.simulated_replica import Replica


class Connection(asyncio.Protocol):
    """One connection, one request on it at a time."""

    def __init__(self, replica: Replica) -> None:
        self._replica = replica
        self._data = b""
        self._sequence: SimulatedSequence | None = None
        self._is_streamed = False
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by asyncio."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        """Called by asyncio: whoever was being answered here is not waiting any more."""
        del exc
        self._transport = None
        if self._sequence is not None:
            self._replica.abort(self._sequence)

    def data_received(self, data: bytes) -> None:
        """Called by asyncio."""
        self._data += data
        head = read_head(self._data)
        if head is None or self._sequence is not None or len(self._data) < head.size + head.content_length:
            return
        body = self._data[head.size : head.size + head.content_length]
        self._data = self._data[head.size + head.content_length :]
        self._answer(head, body)

    def on_tokens(self, sequence: SimulatedSequence) -> None:
        """Called by the replica."""
        is_over = sequence.ended_at is not None
        if is_over:
            self._sequence = None
        if self._is_streamed:
            self._write(chunk(piece(sequence)) + (chunk(DONE) + chunk(b"") if is_over else b""))
        elif is_over:
            self._write(reply("200 OK", whole(sequence)))

    def _answer(self, head: Head, body: bytes) -> None:
        match (head.method, head.target):
            case (b"POST", b"/v1/chat/completions"):
                self._generate(head, body)
            case (b"GET", b"/health"):
                self._write(reply("200 OK", b"{}"))
            case (b"GET", b"/record"):
                self._write(reply("200 OK", msgspec.json.encode(self._replica.record())))
            case _:
                self._write(reply("404 Not Found", b'{"detail": "Not Found"}'))

    def _generate(self, head: Head, body: bytes) -> None:
        try:
            wanted = Wanted.read(head, body)
            self._is_streamed = wanted.is_streamed
            self._sequence = self._replica.start(wanted, self)
        except (ValueError, msgspec.DecodeError) as error:
            self._write(reply("400 Bad Request", msgspec.json.encode({"message": str(error)})))
            return
        if wanted.is_streamed:
            # At once, long before the first token: so does trtllm-serve.
            self._write(STREAM_HEAD)

    def _write(self, data: bytes) -> None:
        if self._transport is not None:
            self._transport.write(data)


async def serve(port: int, shape: EngineShape, time_factor: float) -> None:
    """Serve until SIGTERM or SIGINT."""
    loop = asyncio.get_running_loop()
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    replica = Replica(shape, time_factor)
    server = await loop.create_server(lambda: Connection(replica), "127.0.0.1", port, backlog=4096)
    print(f"simulated model server (no GPU, no model, made-up text) on http://127.0.0.1:{port}", flush=True)
    await stopping.wait()
    server.close()


def main() -> None:
    """Parse and serve."""
    parser = argparse.ArgumentParser(description="A simulated model server: no GPU, no model, made-up text.")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--time-factor", type=float, default=1.0, help="simulated seconds per second")
    parser.add_argument("--shape", default="{}", help="EngineShape as JSON")
    options = parser.parse_args()
    asyncio.run(serve(options.port, msgspec.json.decode(options.shape, type=EngineShape), options.time_factor))


if __name__ == "__main__":
    main()
