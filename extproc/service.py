"""Envoy's ExternalProcessor service: one stream a request, and the stream is the lease.

Reads a message, lets the exchange decide, carries out what it asks for, answers. The stream stays open until the HTTP
request has ended, however it ends; then its lease goes back.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from typing import Any

from extproc.desk import AdmissionDesk, Answer
from extproc.events import (
    AcquireLease,
    Decision,
    Effect,
    Event,
    JoinQueue,
    LeaseGranted,
    ReleaseLease,
    Reply,
    Report,
    StreamEnded,
    TurnedAway,
)
from extproc.exchange import Exchange
from extproc.routing import Signals
from extproc.wire import SERVICE_NAME, build_response, parse_request
from headgate.policy.model import Policy
from headgate.transport import RpcError, Send, Service

_log = logging.getLogger("headgate.extproc")


class ExtProcService:
    """The shell around `Exchange`.

    Args:
        policy: yields the policy in force; a request keeps the one it started with.
        report: is told of every decision, and how many seconds deciding took without the wait in a queue.
        clock: seconds, monotonic.
    """

    def __init__(
        self,
        *,
        policy: Callable[[], Policy],
        desk: AdmissionDesk,
        signals: Signals,
        report: Callable[[Decision, float], None],
        clock: Callable[[], float],
        region: str = "",
    ) -> None:
        self._policy = policy
        self._desk = desk
        self._signals = signals
        self._report = report
        self._clock = clock
        self._region = region
        self._open: set[_Conversation] = set()
        self._is_draining = False

    def service(self) -> Service:
        """What a transport serves."""
        return Service(name=SERVICE_NAME, streams={"Process": self.process})

    @property
    def open_streams(self) -> int:
        """Requests in flight."""
        return len(self._open)

    def drain(self) -> None:
        """End every stream normally once its request is decided: Envoy then lets it go on without us.

        A stream that ended in an error or a cancellation would cut the response its client is reading; one that
        ended undecided would let its request pass unchecked.
        """
        self._is_draining = True
        for conversation in self._open:
            conversation.interrupt()

    async def process(self, messages: AsyncIterator[bytes], send: Send) -> None:
        """Serve one stream."""
        exchange = Exchange(self._policy(), self._signals, self._region)
        conversation = _Conversation(exchange, messages, send, self._desk, self._report, self._clock)
        self._open.add(conversation)
        if self._is_draining:
            conversation.interrupt()
        try:
            await conversation.run()
        except asyncio.CancelledError:
            if not self._is_draining:
                raise
            await conversation.turn_away("shutting_down")
        except RpcError:
            raise
        except Exception:  # noqa: BLE001  (the outermost frame of a request)
            # Returning without an answer would let the request through unchecked.
            _log.exception("a decision failed")
            await conversation.turn_away("internal_error")
        finally:
            self._open.discard(conversation)
            await conversation.end()


class _Conversation:
    """One stream: its exchange, and the messages read ahead while the request waits in a queue."""

    def __init__(
        self,
        exchange: Exchange,
        messages: AsyncIterator[bytes],
        send: Send,
        desk: AdmissionDesk,
        report: Callable[[Decision, float], None],
        clock: Callable[[], float],
    ) -> None:
        self._exchange = exchange
        self._messages = messages
        self._send = send
        self._desk = desk
        self._report = report
        self._clock = clock
        self._task = asyncio.current_task()
        self._read_ahead: list[asyncio.Future[bytes | None]] = []
        self._unanswered = 0
        self._is_sending = False
        self._is_interrupted = False
        self._decision_seconds = 0.0

    async def run(self) -> None:
        """Answer messages until Envoy closes the stream or, interrupted, until the request is decided."""
        while not (self._is_interrupted and self._exchange.is_decided):
            message = await self._next()
            if message is None:
                return
            event = parse_request(message)
            self._unanswered += 1
            await self._feed(event)

    def interrupt(self) -> None:
        """End soon: now, after the answer on its way (grpcio cannot end in the midst of one), or once decided."""
        self._is_interrupted = True
        if self._task is not None and not self._is_sending and (self._unanswered or self._exchange.is_decided):
            self._task.cancel()

    async def turn_away(self, reason: str) -> None:
        """Answer the message that still waits for one, so that the request does not pass unchecked."""
        if self._unanswered:
            await self._feed(TurnedAway(reason))

    async def end(self) -> None:
        """Give back what the request holds."""
        for read in self._read_ahead:
            read.cancel()
        await self._perform(self._exchange.receive(StreamEnded(), self._clock()))

    async def _next(self) -> bytes | None:
        if self._read_ahead:
            return await self._read_ahead.pop(0)
        return await _read(self._messages)

    async def _feed(self, event: Event) -> None:
        started_at = self._clock()
        effects = self._exchange.receive(event, started_at)
        self._decision_seconds += self._clock() - started_at
        await self._perform(effects)

    async def _perform(self, effects: list[Effect]) -> None:
        for effect in effects:
            match effect:
                case AcquireLease():
                    await self._feed(await self._desk.acquire(effect))
                case JoinQueue() if self._is_interrupted:
                    await self.turn_away("shutting_down")
                case JoinQueue():
                    answer = await self._wait(effect)
                    if answer is not None:
                        await self._feed(answer)
                case ReleaseLease(lease):
                    self._desk.release(lease)
                case Report(decision):
                    self._report(decision, self._decision_seconds)
                case _:
                    await self._answer(effect)

    async def _answer(self, reply: Reply) -> None:
        message = build_response(reply)
        self._unanswered -= 1
        self._is_sending = True
        await self._send(message)
        self._is_sending = False

    async def _wait(self, effect: JoinQueue) -> Answer | None:
        """Wait for a slot and, side by side, for the client's departure: then None, and the place is gone at once."""
        waiting = asyncio.ensure_future(self._desk.wait(effect))
        try:
            while not waiting.done():
                reading = self._reading()
                either: set[asyncio.Future[Any]] = {waiting, reading}
                await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
                if reading.done() and reading.result() is None:
                    await self._abandon(waiting)
                    return None
        except BaseException:
            # Cancelled, or the stream broke: either way nobody is left to use the slot.
            await self._abandon(waiting)
            raise
        return waiting.result()

    async def _abandon(self, waiting: asyncio.Future[Answer]) -> None:
        waiting.cancel()
        [answer] = await asyncio.gather(waiting, return_exceptions=True)
        if isinstance(answer, LeaseGranted):
            self._desk.release(answer.lease)

    def _reading(self) -> asyncio.Future[bytes | None]:
        """The next message still to come. A read is never cancelled: that would end the stream for grpcio."""
        if not self._read_ahead or self._read_ahead[-1].done():
            self._read_ahead.append(asyncio.ensure_future(_read(self._messages)))
        return self._read_ahead[-1]


async def _read(messages: AsyncIterator[bytes]) -> bytes | None:
    return await anext(messages, None)
