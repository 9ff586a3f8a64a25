"""One call on a connection: messages in to its conversation, messages and a status out, windows both ways.

It is the `Call` its conversation answers through. The common case, a message a frame with room to send it, is kept
free of everything the rare ones need.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from struct import Struct
from typing import Final

from headgate.transport import Conversation, Metadata, OpenConversation, RpcError, StatusCode
from headgate.transport.lean.backlog import Backlog
from headgate.transport.lean.frames import (
    END_HEADERS,
    END_STREAM,
    HEADERS,
    MAX_WINDOW_BYTES,
    ErrorCode,
    StreamFault,
)
from headgate.transport.lean.messages import PREFIX_BYTES, Deframer
from headgate.transport.lean.outbox import Outbox
from headgate.transport.lean.request_head import RequestHead
from headgate.transport.lean.responses import (
    RESPONSE_HEADERS,
    trailers,
    trailers_only,
)
from headgate.transport.lean.stream_table import StreamTable

_log = logging.getLogger("headgate.transport")
_MESSAGE: Final = Struct(">IBIBI")
_HEADERS_AND_MESSAGE: Final = Struct(f">IBI{len(RESPONSE_HEADERS)}sIBIBI")
_HEADERS_WORD: Final = len(RESPONSE_HEADERS) << 8 | HEADERS
_MESSAGE_PREFIX: Final = Struct(">BI")


class Stream:
    """One call.

    Attributes:
        opened_at: the time of the read it came in.
        is_open: whether an answer is still awaited.
        is_half_closed: whether the peer has said that it sends no more.
        has_answered: whether anything has gone out.
        send_window: how many bytes of DATA the peer takes.
        receive_window: how many it may send.
    """

    __slots__ = (
        "_backlog",
        "_conversation",
        "_deframer",
        "_is_paused",
        "_on_cancelled",
        "_on_drained",
        "_outbox",
        "_table",
        "_trailers",
        "_uncounted",
        "has_answered",
        "head",
        "id",
        "is_half_closed",
        "is_open",
        "opened_at",
        "receive_window",
        "send_window",
    )

    def __init__(self, stream_id: int, head: RequestHead, table: StreamTable, outbox: Outbox, now: float) -> None:
        self.id = stream_id
        self.head = head
        self.opened_at = now
        self.is_open = True
        self.has_answered = False
        self.send_window = outbox.initial_window
        self.receive_window = table.limits.stream_window_bytes
        self._table = table
        self._outbox = outbox
        self._conversation: Conversation | None = None
        self._deframer: Deframer | None = None
        self.is_half_closed = False
        self._is_paused = False
        self._on_cancelled: Callable[[], object] | None = None
        self._on_drained: Callable[[], None] | None = None
        self._backlog: Backlog | None = None
        self._trailers: bytes | None = None
        self._uncounted = head.content_length

    # what the conversation asks for

    @property
    def metadata(self) -> Metadata:
        """What the peer sent with the call."""
        return self.head.metadata

    @property
    def timeout_seconds(self) -> float | None:
        """The peer's deadline, counted from the call's start."""
        return self.head.timeout_seconds

    def send(self, message: bytes) -> None:
        """Answer with a message."""
        if not self.is_open:
            return
        size = len(message)
        frame_bytes = size + PREFIX_BYTES
        outbox = self._outbox
        if (
            frame_bytes > self.send_window
            or frame_bytes > outbox.window
            or frame_bytes > outbox.max_frame_bytes
            or self._backlog is not None
        ):
            self._send_in_pieces(_MESSAGE_PREFIX.pack(0, size) + message)
            return
        self.send_window -= frame_bytes
        outbox.window -= frame_bytes
        parts = outbox.parts
        if not parts:
            outbox.wake()
        stream_id = self.id
        if self.has_answered:
            parts.append(_MESSAGE.pack(frame_bytes << 8, 0, stream_id, 0, size))
        else:
            self.has_answered = True
            word, block = _HEADERS_WORD, RESPONSE_HEADERS
            parts.append(
                _HEADERS_AND_MESSAGE.pack(word, END_HEADERS, stream_id, block, frame_bytes << 8, 0, stream_id, 0, size)
            )
        parts.append(message)

    def finish(self, code: StatusCode = StatusCode.OK, message: str = "") -> None:
        """End the stream; what was sent before arrives first."""
        if not self.is_open:
            return
        self.is_open = False
        self._on_cancelled = None
        self._trailers = trailers(code, message) if self.has_answered else trailers_only(code, message)
        if self._backlog is None:
            self._send_trailers(self._trailers)
        self._end_conversation()

    def pause(self) -> None:
        """Open the window no further."""
        self._is_paused = True

    def resume(self) -> None:
        """Open the window again."""
        self._is_paused = False
        self._replenish()

    def on_cancelled(self, listener: Callable[[], object]) -> None:
        """Call `listener` if the peer gives up."""
        self._on_cancelled = listener

    @property
    def is_congested(self) -> bool:
        """Whether it is wise to wait before the next message."""
        return self._backlog is not None or self._outbox.is_congested

    def on_drained(self, listener: Callable[[], None]) -> None:
        """Call `listener`, once, when the congestion is over; not when the stream ends before."""
        self._on_drained = listener
        if self._backlog is None:
            self._outbox.waiting.append(self)

    # what the connection tells

    def begin(self, open_conversation: OpenConversation) -> None:
        """The call has its handler."""
        try:
            self._conversation = open_conversation(self)
        except RpcError as error:
            self.finish(error.code, error.message)
        except Exception:  # noqa: BLE001  (a handler's bug ends its call, not the connection)
            self._fail()

    def receive(self, payload: bytes, frame_bytes: int, *, is_end: bool) -> None:
        """A DATA frame, `frame_bytes` long with its padding.

        Raises:
            StreamFault: there was no room for it, or more than the peer had promised.
        """
        self.receive_window -= frame_bytes
        size = len(payload)
        table = self._table
        if self.receive_window < table.limits.stream_window_bytes >> 1 and not is_end:
            self._replenish()
        if self._uncounted is not None:
            self._count(size)
        if (
            self._deframer is None
            and PREFIX_BYTES <= size <= table.limits.max_message_bytes
            and not payload[0]
            and int.from_bytes(payload[1:PREFIX_BYTES], "big") == size - PREFIX_BYTES
        ):
            self._deliver(payload[PREFIX_BYTES:])
        elif size:
            self._receive_pieces(payload)
        if is_end:
            self.half_close()

    def half_close(self) -> None:
        """The peer sends no more.

        Raises:
            StreamFault: it had promised more.
        """
        self._check_count()
        self.is_half_closed = True
        if self._deframer is not None and self._deframer.kept_bytes:
            self.finish(StatusCode.INTERNAL, "the stream ended inside a message")
        self._end_conversation()

    def cancel(self) -> None:
        """Nobody listens any more."""
        listener, self._on_cancelled = self._on_cancelled, None
        self.is_open = False
        self._forget()
        self._end_conversation()
        self._tell(listener)

    def expire(self) -> None:
        """The deadline has passed: what could not be sent by now is not sent at all."""
        listener = self._on_cancelled
        self._drop_backlog()
        if self._trailers is not None:
            self._send_trailers(self._trailers)
        self.finish(StatusCode.DEADLINE_EXCEEDED, "the deadline has passed")
        self._tell(listener)

    def raise_window(self, increment: int) -> None:
        """The peer takes more.

        Raises:
            StreamFault: more than a window can hold.
        """
        if self.send_window + increment > MAX_WINDOW_BYTES:
            raise StreamFault(self.id, ErrorCode.FLOW_CONTROL_ERROR, "the stream's window overflows")
        self.send_window += increment
        if self._backlog is not None:
            self.pump()

    def pump(self) -> None:
        """Send as much of the backlog as there is room for."""
        backlog = self._backlog
        if backlog is None:
            return
        self.send_window -= backlog.pump(self.send_window)
        if backlog.kept_bytes:
            return
        self._drop_backlog()
        if self._trailers is not None:
            self._send_trailers(self._trailers)
        else:
            self.drained()

    def drained(self) -> None:
        """There is room again for what is sent from now on."""
        listener = self._on_drained
        if listener is None:
            return
        if self._outbox.is_congested:
            self._outbox.waiting.append(self)
            return
        self._on_drained = None
        self._tell(listener)

    # inwards

    def _deliver(self, message: bytes) -> None:
        conversation = self._conversation
        if conversation is None:
            return
        try:
            conversation.receive(message)
        except RpcError as error:
            self.finish(error.code, error.message)
        except Exception:  # noqa: BLE001  (a handler's bug ends its call, not the connection)
            self._fail()

    def _end_conversation(self) -> None:
        conversation, self._conversation = self._conversation, None
        if conversation is None:
            return
        try:
            conversation.ended()
        except RpcError as error:
            self.finish(error.code, error.message)
        except Exception:  # noqa: BLE001  (a handler's bug ends its call, not the connection)
            self._fail()

    def _tell(self, listener: Callable[[], object] | None) -> None:
        if listener is None:
            return
        try:
            listener()
        except Exception:  # noqa: BLE001  (a handler's bug ends its call, not the connection)
            self._fail()

    def _fail(self) -> None:
        _log.exception("a handler of %s failed", self.head.path)
        self.finish(StatusCode.UNKNOWN, "the handler failed")

    def _receive_pieces(self, payload: bytes) -> None:
        deframer, table = self._deframer, self._table
        if deframer is None:
            deframer = self._deframer = Deframer(table.limits.max_message_bytes, self.head.encoding)
        before = deframer.kept_bytes
        try:
            messages = deframer.feed(payload)
        except RpcError as error:
            self.finish(error.code, error.message)
            return
        finally:
            table.kept_bytes += deframer.kept_bytes - before
        if table.kept_bytes > table.limits.kept_bytes:
            self.finish(StatusCode.RESOURCE_EXHAUSTED, "too much of unfinished messages on this connection")
            return
        if not deframer.kept_bytes:
            self._deframer = None
        elif deframer.missing_bytes > self.receive_window:
            self._replenish()
        for message in messages:
            self._deliver(message)

    def _replenish(self) -> None:
        if self.receive_window < 0:
            raise StreamFault(self.id, ErrorCode.FLOW_CONTROL_ERROR, "more data than the stream's window holds")
        if self._is_paused or self.is_half_closed or not self.is_open:
            return
        missing = self._deframer.missing_bytes if self._deframer is not None else 0
        increment = self._table.limits.stream_window_bytes + missing - self.receive_window
        if increment > 0:
            self.receive_window += increment
            self._outbox.grant(self.id, increment)

    def _check_count(self) -> None:
        if self._uncounted:
            raise StreamFault(self.id, ErrorCode.PROTOCOL_ERROR, "less content than content-length says")

    def _count(self, size: int) -> None:
        assert self._uncounted is not None  # noqa: S101  (asked by the caller)
        self._uncounted -= size
        if self._uncounted < 0:
            raise StreamFault(self.id, ErrorCode.PROTOCOL_ERROR, "more content than content-length says")

    # outwards

    def _send_in_pieces(self, data: bytes) -> None:
        outbox = self._outbox
        if not self.has_answered:
            self.has_answered = True
            outbox.frame(HEADERS, END_HEADERS, self.id, RESPONSE_HEADERS)
        self._keep(data)
        if outbox.kept_bytes > outbox.max_kept_bytes:
            _log.warning("a peer does not take what it asked for: a call of %s is cut", self.head.path)
            outbox.reset(self.id, ErrorCode.ENHANCE_YOUR_CALM)
            self._table.note_reset(self.id)
            self.cancel()

    def _keep(self, data: bytes) -> None:
        if self._backlog is None:
            self._backlog = Backlog(self.id, self._outbox)
            self._outbox.blocked[self.id] = self
        self._backlog.put(data)
        self.pump()

    def _send_trailers(self, block: bytes) -> None:
        self._outbox.frame(HEADERS, END_HEADERS | END_STREAM, self.id, block)
        self._close()

    def _close(self) -> None:
        if not self.is_half_closed:
            # The answer is complete without the rest of the request (RFC 9113, 8.1).
            self._outbox.reset(self.id, ErrorCode.NO_ERROR)
            self._table.note_reset(self.id)
        self._forget()

    def _forget(self) -> None:
        self._table.open.pop(self.id, None)
        if self._backlog is not None:
            self._drop_backlog()
        if self._deframer is not None:
            self._table.kept_bytes -= self._deframer.kept_bytes
            self._deframer = None

    def _drop_backlog(self) -> None:
        if self._backlog is not None:
            self._backlog.drop()
            self._outbox.blocked.pop(self.id, None)
            self._backlog = None
