"""Clients, thousands at a time, each with a connection of its own; some leave before they have their answer.

`Visit` is one request and all that came of it. Nothing is retried.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum

import msgspec

from bench.overload.http_head import Head, read_head
from tests.chaos.script import HEADER, Script

PATIENCE_SECONDS = 60.0
_BODY = b'{"model":"assistant","stream":true,"max_tokens":16,"messages":[{"role":"user","content":"Tell me a story."}]}'
_BATCH = 100


class Leaving(StrEnum):
    """When a client leaves."""

    NEVER = "never"
    IN_THE_HEAD = "in_the_head"
    IN_THE_BODY = "in_the_body"
    ONCE_SENT = "once_sent"
    WHEN_TOLD = "when_told"
    """By `leave()`: it may wait in the queue, or be answered."""
    AT_THE_HEAD = "at_the_head"
    MID_STREAM = "mid_stream"
    AT_DONE = "at_done"


class Verdict(StrEnum):
    """What a client was told became of it; the sidecar's own words."""

    ADMIT = "admit"
    QUEUE = "queue"
    DEGRADE = "degrade"
    REJECT = "reject"


@dataclass(eq=False)
class Visit(asyncio.Protocol):
    """One client."""

    script: Script
    key: str
    leaving: Leaving = Leaving.NEVER
    head: Head | None = None
    received: bytes = b""
    has_left: bool = False
    over: asyncio.Future[None] = field(default_factory=lambda: asyncio.get_running_loop().create_future())
    transport: asyncio.Transport | None = None

    # what came of it

    @property
    def status(self) -> int:
        """0 without an answer."""
        return self.head.status if self.head else 0

    @property
    def verdict(self) -> Verdict | None:
        """None when nothing was said about it."""
        decision = self._header(b"x-headgate-decision")
        return Verdict(decision.partition(";")[0]) if decision else None

    @property
    def reason(self) -> str:
        """Why it was refused, or admitted elsewhere."""
        return self._header(b"x-headgate-decision").partition("reason=")[2].partition(";")[0]

    @property
    def is_complete(self) -> bool:
        """Whether the answer, whatever it says, has come to its end."""
        if self.head is None:
            return False
        if self.head.is_chunked:
            return self.received.endswith(b"0\r\n\r\n")
        return len(self.received) >= self.head.size + self.head.content_length

    @property
    def is_served(self) -> bool:
        """Whether it has all of a model's answer."""
        return self.status == 200 and self.is_complete and b"[DONE]" in self.received

    # what it does

    async def come(self, port: int) -> None:
        """Connect and send."""
        try:
            await asyncio.get_running_loop().create_connection(lambda: self, "127.0.0.1", port)
        except OSError:
            self._finish()

    def leave(self) -> None:
        """Hang up now; without effect when it is over."""
        if not self.over.done():
            self.has_left = True
            self._finish()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        head = (
            "POST /v1/chat/completions HTTP/1.1\r\nhost: chaos\r\ncontent-type: application/json\r\n"
            f"authorization: Bearer {self.key}\r\ncontent-length: {len(_BODY)}\r\n"
            f"{HEADER}: {msgspec.json.encode(self.script).decode()}\r\n\r\n"
        ).encode()
        match self.leaving:
            case Leaving.IN_THE_HEAD:
                transport.write(head[: len(head) // 2])
            case Leaving.IN_THE_BODY:
                transport.write(head + _BODY[: len(_BODY) // 2])
            case _:
                transport.write(head + _BODY)
        if self.leaving in (Leaving.IN_THE_HEAD, Leaving.IN_THE_BODY, Leaving.ONCE_SENT):
            asyncio.get_running_loop().call_later(0.02, self.leave)

    def data_received(self, data: bytes) -> None:
        self.received += data
        if self.head is None:
            self.head = read_head(self.received)
        if self._is_time_to_leave():
            self.leave()
        elif self.is_complete:
            self._finish()

    def connection_lost(self, exc: Exception | None) -> None:
        self._finish()

    def _is_time_to_leave(self) -> bool:
        match self.leaving:
            case Leaving.AT_THE_HEAD:
                return self.status == 200
            case Leaving.MID_STREAM:
                return self.received.count(b"data:") > 1
            case Leaving.AT_DONE:
                return b"[DONE]" in self.received
            case _:
                return False

    def _finish(self) -> None:
        if self.transport is not None:
            self.transport.abort()
        if not self.over.done():
            self.over.set_result(None)

    def _header(self, name: bytes) -> str:
        return self.head.headers.get(name, b"").decode() if self.head else ""


async def send(port: int, visits: Iterable[Visit]) -> None:
    """Let them come, not all in the very same moment: a listener's backlog is finite."""
    coming = list(visits)
    for start in range(0, len(coming), _BATCH):
        await asyncio.gather(*(visit.come(port) for visit in coming[start : start + _BATCH]))


async def all_over(visits: Iterable[Visit]) -> None:
    """Wait until each has its answer, was cut off, or has left."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        await asyncio.gather(*(visit.over for visit in visits))
