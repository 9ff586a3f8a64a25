"""Coroutine handlers as conversations: a task per call, for methods where that cost does not matter."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator, Callable, Coroutine
from functools import partial
from typing import Any, Final

from headgate.transport import Call, Conversation, OpenConversation, RpcError, StatusCode, StreamHandler, UnaryHandler

_READ_AHEAD_BYTES: Final = 64 * 1024
_log = logging.getLogger("headgate.transport")


def open_unary(handler: UnaryHandler) -> OpenConversation:
    """A unary coroutine as a conversation."""

    def open_conversation(call: Call) -> Conversation:
        return _UnaryCall(handler, call)

    return open_conversation


def open_stream(handler: StreamHandler) -> OpenConversation:
    """A stream coroutine as a conversation."""

    def open_conversation(call: Call) -> Conversation:
        return _StreamCall(handler, call)

    return open_conversation


class _UnaryCall:
    """Starts the handler when the peer has said that its one message is all."""

    def __init__(self, handler: UnaryHandler, call: Call) -> None:
        self._handler = handler
        self._call = call
        self._message: bytes | None = None

    def receive(self, message: bytes) -> None:
        if self._message is not None:
            raise RpcError(StatusCode.INTERNAL, "more than one message to a method that takes one")
        self._message = message

    def ended(self) -> None:
        if not self._call.is_open:
            return
        if self._message is None:
            raise RpcError(StatusCode.INTERNAL, "no message to a method that takes one")
        _start(self._call, partial(self._answer, self._message))

    async def _answer(self, message: bytes) -> None:
        self._call.send(await self._handler(message))


class _StreamCall:
    """Keeps the messages the handler has not asked for yet."""

    def __init__(self, handler: StreamHandler, call: Call) -> None:
        self._call = call
        self._messages: deque[bytes] = deque()
        self._kept_bytes = 0
        self._has_ended = False
        self._is_paused = False
        self._reader: asyncio.Future[None] | None = None
        _start(call, partial(handler, _Messages(self), self._send))

    def receive(self, message: bytes) -> None:
        self._messages.append(message)
        self._kept_bytes += len(message)
        if self._kept_bytes > _READ_AHEAD_BYTES and not self._is_paused:
            self._is_paused = True
            self._call.pause()
        self._wake()

    def ended(self) -> None:
        self._has_ended = True
        self._wake()

    async def next(self) -> bytes:
        """The next message; raises StopAsyncIteration after the last."""
        while not self._messages:
            if self._has_ended:
                raise StopAsyncIteration
            self._reader = asyncio.get_running_loop().create_future()
            await self._reader
        message = self._messages.popleft()
        self._kept_bytes -= len(message)
        if self._is_paused and self._kept_bytes <= _READ_AHEAD_BYTES:
            self._is_paused = False
            self._call.resume()
        return message

    def _wake(self) -> None:
        if self._reader is not None and not self._reader.done():
            self._reader.set_result(None)

    async def _send(self, message: bytes) -> None:
        self._call.send(message)
        if self._call.is_congested:
            await _relief(self._call)


class _Messages(AsyncIterator[bytes]):
    """What the handler reads from. A read that is cancelled loses no message."""

    def __init__(self, stream: _StreamCall) -> None:
        self._stream = stream

    async def __anext__(self) -> bytes:
        return await self._stream.next()


async def _relief(call: Call) -> None:
    drained = asyncio.get_running_loop().create_future()

    def resume() -> None:
        if not drained.done():
            drained.set_result(None)

    call.on_drained(resume)
    await drained


def _start(call: Call, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run a call in a task that lives and dies with it; one that is cancelled at once never begins."""
    task = asyncio.get_running_loop().create_task(_finish(call, work))
    call.on_cancelled(task.cancel)


async def _finish(call: Call, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    try:
        await work()
    except RpcError as error:
        call.finish(error.code, error.message)
    except asyncio.CancelledError:
        call.finish(StatusCode.CANCELLED, "the call was cancelled")
        raise
    except Exception:  # noqa: BLE001  (a handler's bug ends its call, not the connection)
        _log.exception("a handler failed")
        call.finish(StatusCode.UNKNOWN, "the handler failed")
    else:
        call.finish()
