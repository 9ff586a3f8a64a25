"""`python -m tests.chaos.upstream CLUSTER=PORT ...`: a slow model server that counts for itself how much runs.

It knows nothing of Headgate: clusters are its own ports, tenants and tiers what the clients say of themselves.
`GET /record` for the counts, `POST /forget` to start the maxima anew, `POST /close` and `POST /open` for the gate at
which every answer waits after its first bytes.
"""

from __future__ import annotations

import asyncio
import sys
from collections import Counter
from dataclasses import dataclass, field

import msgspec

from bench.overload.http_head import Head, read_head
from tests.chaos.script import HEADER, Act, Script

_HEARTBEAT_SECONDS = 0.3
_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
_EVENT = b'data: {"choices":[{"index":0,"delta":{"content":"word "}}]}\n\n'
_USAGE = b'data: {"choices":[],"usage":{"prompt_tokens":7,"completion_tokens":3,"total_tokens":10}}\n\n'
_DONE = b"data: [DONE]\n\n"
_COMMENT = b": busy\n\n"


class Record(msgspec.Struct):
    """What runs and what ran at most at one time, by `cluster:NAME`, `tenant:NAME`, `tier:NAME`, `request:NAME`."""

    running: dict[str, int]
    most: dict[str, int]
    attempts: dict[str, int]


@dataclass
class Counts:
    """The numbers of now and their maxima."""

    running: Counter[str] = field(default_factory=Counter)
    most: dict[str, int] = field(default_factory=dict)
    attempts: Counter[str] = field(default_factory=Counter)

    def begin(self, names: tuple[str, ...]) -> None:
        for name in names:
            self.running[name] += 1
            self.most[name] = max(self.most.get(name, 0), self.running[name])

    def end(self, names: tuple[str, ...]) -> None:
        self.running.subtract(names)

    def record(self) -> Record:
        return Record(running=dict(+self.running), most=self.most, attempts=dict(self.attempts))


class Gate:
    """Holds all answers while it is closed; sends something now and then, so that nobody takes them for dead."""

    def __init__(self) -> None:
        self.is_open = asyncio.Event()
        self.is_open.set()

    async def pass_through(self, connection: Connection) -> None:
        while not self.is_open.is_set():
            connection.write(_chunk(_COMMENT))
            try:
                await asyncio.wait_for(self.is_open.wait(), _HEARTBEAT_SECONDS)
            except TimeoutError:
                pass  # another sign of life is due


class Connection(asyncio.Protocol):
    """One connection, one request on it at a time."""

    def __init__(self, cluster: str, counts: Counts, gate: Gate) -> None:
        self._cluster = cluster
        self._counts = counts
        self._gate = gate
        self._data = b""
        self._transport: asyncio.Transport | None = None
        self._answering: asyncio.Task[None] | None = None
        self._names: tuple[str, ...] = ()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._end()
        if self._answering is not None:
            self._answering.cancel()

    def eof_received(self) -> None:
        self._end()

    def data_received(self, data: bytes) -> None:
        self._data += data
        head = read_head(self._data)
        if head is None or len(self._data) < head.size + head.content_length:
            return
        self._data = self._data[head.size + head.content_length :]
        # After the ends of all connections that Envoy closed before it sent this: they are told a turn late.
        loop = asyncio.get_running_loop()
        loop.call_soon(loop.call_soon, self._begin, head)

    def write(self, data: bytes) -> None:
        if self._transport is not None:
            self._transport.write(data)

    def _begin(self, head: Head) -> None:
        if self._transport is None:
            return
        if HEADER.encode() not in head.headers:
            self._control(head.target)
            return
        script = msgspec.json.decode(head.headers[HEADER.encode()], type=Script)
        act = script.act(self._counts.attempts[script.request])
        self._counts.attempts[script.request] += 1
        self._names = (
            *(f"cluster:{self._cluster}", f"tenant:{script.tenant}", f"tier:{script.tier}"),
            f"request:{script.request}",
        )
        self._counts.begin(self._names)
        self._answering = asyncio.get_running_loop().create_task(self._play(script, act))

    def _end(self) -> None:
        names, self._names = self._names, ()
        self._counts.end(names)

    def _hang_up(self) -> None:
        self._end()
        if self._transport is not None:
            self._transport.abort()

    async def _play(self, script: Script, act: Act) -> None:
        if act is Act.FAIL:
            await asyncio.sleep(script.pace_seconds)
            self._end()
            self.write(b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n")
        elif act is Act.RESET:
            await asyncio.sleep(script.pace_seconds)
            self._hang_up()
        else:
            await self._stream(script, act)

    async def _stream(self, script: Script, act: Act) -> None:
        self.write(_HEAD + _chunk(_EVENT))
        await self._gate.pass_through(self)
        for number in range(1, script.chunks):
            await asyncio.sleep(script.pace_seconds)
            if number * 2 >= script.chunks and act is not Act.ANSWER:
                if act is Act.CUT:
                    self._hang_up()
                return
            self.write(_chunk(_EVENT))
        await asyncio.sleep(script.pace_seconds)
        self.write(_chunk(_USAGE))
        # With the last bytes the request is over here, whatever anybody does after reading them.
        self._end()
        self.write(_chunk(_DONE) + _chunk(b""))

    def _control(self, target: bytes) -> None:
        match target:
            case b"/open":
                self._gate.is_open.set()
            case b"/close":
                self._gate.is_open.clear()
            case b"/forget":
                self._counts.most = dict(+self._counts.running)
        body = msgspec.json.encode(self._counts.record())
        self.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body))


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


async def serve(ports: dict[str, int]) -> None:
    """Serve until killed."""
    loop = asyncio.get_running_loop()
    counts, gate = Counts(), Gate()
    for cluster, port in ports.items():
        await loop.create_server(
            lambda cluster=cluster: Connection(cluster, counts, gate), "127.0.0.1", port, backlog=4096
        )
    await asyncio.Event().wait()


if __name__ == "__main__":
    pairs = (argument.partition("=") for argument in sys.argv[1:])
    asyncio.run(serve({cluster: int(port) for cluster, _, port in pairs}))
