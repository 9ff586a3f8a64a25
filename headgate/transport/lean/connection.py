"""One HTTP/2 connection of a gRPC server, without a socket, a clock or an event loop.

Bytes go in through `receive`, calls come out as conversations, answers leave through `outbox`. What the peer does
wrong ends a stream or the connection, never the process.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final

from headgate.transport.lean.deadlines import Deadlines
from headgate.transport.lean.frames import (
    ACK,
    CONTINUATION,
    DEFAULT_FRAME_BYTES,
    DEFAULT_WINDOW_BYTES,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HAS_PRIORITY,
    HEADER,
    HEADER_BYTES,
    MAX_STREAM_ID,
    PADDED,
    PING,
    PREFACE,
    PRIORITY_BYTES,
    SETTING,
    SETTINGS,
    UINT32,
    ConnectionFault,
    ErrorCode,
    Setting,
    StreamFault,
    dependency,
    without_padding,
)
from headgate.transport.lean.header_blocks import MAX_HEADER_LIST_BYTES, HeaderReader, RememberedHeads, UnfinishedBlock
from headgate.transport.lean.limits import FloodGuard, Limits
from headgate.transport.lean.outbox import Outbox
from headgate.transport.lean.peer_settings import apply_settings
from headgate.transport.lean.stream_table import StreamTable
from headgate.transport.lean.switchboard import Methods, Switchboard

_log = logging.getLogger("headgate.transport")
_DRAINING: Final = b"draining"
_KEEPALIVE: Final = b"keepaliv"
_unpack_header: Final = HEADER.unpack_from


class Connection:
    """The server's side of one connection.

    Attributes:
        outbox: what has to be written.
        is_closed: nothing more will be read or answered; write what is left and hang up.
    """

    def __init__(self, methods: Methods, limits: Limits, remembered: RememberedHeads) -> None:
        self._limits = limits
        self._streams = StreamTable(limits)
        self._open = self._streams.open
        self._floods = FloodGuard()
        self._rest = b""
        self._block: UnfinishedBlock | None = None
        self._window = limits.connection_window_bytes
        self._low_window = limits.connection_window_bytes // 2
        self._now = 0.0
        self._has_preface = False
        self.deadlines = Deadlines(self._open)
        self.outbox = Outbox(limits.kept_bytes)
        self._switchboard = Switchboard(methods, HeaderReader(remembered), self._streams, self.deadlines, self.outbox)
        self.is_closed = False
        self._greet()

    @property
    def open_streams(self) -> int:
        """Calls that have not ended."""
        return len(self._open)

    @property
    def is_greeted(self) -> bool:
        """Whether the peer has shown that it speaks HTTP/2."""
        return self._has_preface

    def receive(self, data: bytes, now: float) -> None:
        """Take what the peer sent; `now` in seconds on any steady clock."""
        if self.is_closed:
            return
        self._now = now
        self._floods.on_read()
        if self._rest:
            data = self._rest + data
        try:
            if self._has_preface:
                self._read_frames(data, 0)
            else:
                self._read_preface(data)
        except ConnectionFault as fault:
            self.fail(fault)

    def expire(self, now: float) -> None:
        """End the calls whose deadline has passed."""
        for stream_id in self.deadlines.passed(now):
            stream = self._open.get(stream_id)
            if stream is not None:
                stream.expire()
        self.close_if_drained()

    def drain(self) -> None:
        """Ask the peer for no more calls. Those on their way are served; `close_to_new` has to follow.

        The peer's answer to the ping says that it has seen the request (RFC 9113, 6.8).
        """
        self.outbox.frame(GOAWAY, 0, 0, UINT32.pack(MAX_STREAM_ID) + UINT32.pack(ErrorCode.NO_ERROR))
        self.outbox.frame(PING, 0, 0, _DRAINING)

    def close_to_new(self) -> None:
        """Refuse new calls from here on; the connection is closed when the last open one has ended."""
        if self._switchboard.is_closed or self.is_closed:
            return
        self._switchboard.is_closed = True
        self._say_goodbye(ErrorCode.NO_ERROR, b"")
        self.close_if_drained()

    def ping(self) -> None:
        """Ask for a sign of life."""
        self.outbox.frame(PING, 0, 0, _KEEPALIVE)

    def fail(self, fault: ConnectionFault) -> None:
        """End the connection and everything on it."""
        _log.info("a connection is closed: %s", fault)
        self._say_goodbye(fault.code, fault.message.encode())
        self.lost()

    def lost(self) -> None:
        """The connection is gone."""
        self.is_closed = True
        for stream in list(self._open.values()):
            stream.cancel()

    # frames

    def _read_preface(self, data: bytes) -> None:
        if data[: len(PREFACE)] != PREFACE[: len(data)]:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "not the preface of HTTP/2")
        kind_at = len(PREFACE) + 3
        if len(data) <= kind_at:
            self._rest = data
        elif data[kind_at] != SETTINGS:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "a preface without settings")
        else:
            self._has_preface = True
            self._read_frames(data, len(PREFACE))

    def _read_frames(self, data: bytes, position: int) -> None:
        end = len(data)
        while end - position >= HEADER_BYTES:
            word, flags, stream_id = _unpack_header(data, position)
            size = word >> 8
            if size > DEFAULT_FRAME_BYTES:
                raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, "a frame that is too large")
            start = position + HEADER_BYTES
            if size > end - start:
                break
            position = start + size
            kind = word & 0xFF
            if self._block is not None and kind != CONTINUATION:
                raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "a header block was not continued")
            try:
                _HANDLERS[kind](self, flags, stream_id & MAX_STREAM_ID, data[start:position])
            except StreamFault as fault:
                self._reset(fault)
            if self.is_closed:
                return
        self._rest = data[position:]
        self.close_if_drained()

    def _on_data(self, flags: int, stream_id: int, payload: bytes) -> None:
        size = len(payload)
        self._window -= size
        if self._window < self._low_window:
            self._replenish()
        stream = self._open.get(stream_id)
        if flags & PADDED:
            payload = without_padding(payload)
        if stream is None or stream.is_half_closed:
            self._on_late_data(stream_id)
            return
        is_end = flags & END_STREAM != 0
        if is_end and not size:
            stream.half_close()
            return
        if not payload and not is_end:
            self._floods.on_control_frame()
        stream.receive(payload, size, is_end=is_end)

    def _on_late_data(self, stream_id: int) -> None:
        if self._streams.is_idle(stream_id):
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "data on a stream that was never opened")
        if not self._streams.was_reset_by_us(stream_id):
            raise StreamFault(stream_id, ErrorCode.STREAM_CLOSED, "data on a stream that is closed")

    def _on_headers(self, flags: int, stream_id: int, payload: bytes) -> None:
        if not stream_id & 1:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "a client's streams have odd numbers")
        depends_on_itself = False
        if flags & PADDED:
            payload = without_padding(payload)
        if flags & HAS_PRIORITY:
            depends_on_itself = dependency(payload) == stream_id
            payload = payload[PRIORITY_BYTES:]
        if not flags & END_HEADERS:
            self._block = UnfinishedBlock(stream_id, payload, flags, depends_on_itself=depends_on_itself)
            return
        self._switchboard.take_block(stream_id, payload, is_end=flags & END_STREAM != 0, now=self._now)
        if depends_on_itself:
            raise _depends_on_itself(stream_id)

    def _on_continuation(self, flags: int, stream_id: int, payload: bytes) -> None:
        block = self._block
        if block is None or block.stream_id != stream_id:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "a continuation of nothing")
        self._floods.on_control_frame()
        block.add(payload)
        if not flags & END_HEADERS:
            return
        self._block = None
        self._switchboard.take_block(stream_id, bytes(block.data), is_end=block.is_end, now=self._now)
        if block.depends_on_itself:
            raise _depends_on_itself(stream_id)

    def _on_priority(self, flags: int, stream_id: int, payload: bytes) -> None:
        del flags
        self._floods.on_control_frame()
        if stream_id == 0:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "a priority of no stream")
        if len(payload) != PRIORITY_BYTES:
            raise StreamFault(stream_id, ErrorCode.FRAME_SIZE_ERROR, "a priority of a wrong size")
        if dependency(payload) == stream_id:
            raise _depends_on_itself(stream_id)

    def _on_rst_stream(self, flags: int, stream_id: int, payload: bytes) -> None:
        del flags
        if len(payload) != 4:
            raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, "a reset of a wrong size")
        if self._streams.is_idle(stream_id):
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "a reset of a stream that was never opened")
        stream = self._open.get(stream_id)
        if stream is None:
            return
        if not stream.has_answered:
            self._floods.on_unanswered_reset(stream.opened_at, self._now, self._streams.opened_total)
        stream.cancel()

    def _on_settings(self, flags: int, stream_id: int, payload: bytes) -> None:
        if stream_id != 0:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "settings on a stream")
        self._floods.on_control_frame()
        if flags & ACK:
            if payload:
                raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, "an acknowledgement with content")
            self._switchboard.headers.limit_table(self._limits.header_table_bytes)
            return
        apply_settings(payload, self.outbox, self._open)
        self.outbox.frame(SETTINGS, ACK, 0)
        self.outbox.pump()

    def _on_push_promise(self, flags: int, stream_id: int, payload: bytes) -> None:
        del flags, stream_id, payload
        raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "clients do not push")

    def _on_ping(self, flags: int, stream_id: int, payload: bytes) -> None:
        if stream_id != 0:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "a ping on a stream")
        if len(payload) != 8:
            raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, "a ping of a wrong size")
        self._floods.on_control_frame()
        if not flags & ACK:
            self.outbox.frame(PING, ACK, 0, payload)
        elif payload == _DRAINING:
            self.close_to_new()

    def _on_goaway(self, flags: int, stream_id: int, payload: bytes) -> None:
        del flags
        if stream_id != 0:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "a farewell on a stream")
        if len(payload) < 8:
            raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, "a farewell of a wrong size")
        # The peer ends its calls and hangs up by itself.
        self._floods.on_control_frame()

    def _on_window_update(self, flags: int, stream_id: int, payload: bytes) -> None:
        del flags
        if len(payload) != 4:
            raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, "a window update of a wrong size")
        increment = UINT32.unpack(payload)[0] & MAX_STREAM_ID
        if stream_id == 0:
            if increment == 0:
                raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "a window raised by nothing")
            self.outbox.raise_window(increment)
            return
        if self._streams.is_idle(stream_id):
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "a window of a stream that was never opened")
        if increment == 0:
            raise StreamFault(stream_id, ErrorCode.PROTOCOL_ERROR, "a window raised by nothing")
        stream = self._open.get(stream_id)
        if stream is not None:
            stream.raise_window(increment)

    def _on_unknown(self, flags: int, stream_id: int, payload: bytes) -> None:
        del flags, stream_id, payload
        self._floods.on_control_frame()

    # ends

    def _reset(self, fault: StreamFault) -> None:
        self.outbox.reset(fault.stream_id, fault.code)
        self._streams.note_reset(fault.stream_id)
        stream = self._open.get(fault.stream_id)
        if stream is not None:
            stream.cancel()

    def _say_goodbye(self, code: ErrorCode, message: bytes) -> None:
        last_id = max(0, self._streams.last_id)
        self.outbox.frame(GOAWAY, 0, 0, UINT32.pack(last_id) + UINT32.pack(code) + message)

    def close_if_drained(self) -> None:
        if self._switchboard.is_closed and not self._open:
            self.is_closed = True

    def _replenish(self) -> None:
        if self._window < 0:
            raise ConnectionFault(ErrorCode.FLOW_CONTROL_ERROR, "more data than the connection's window holds")
        increment = self._limits.connection_window_bytes - self._window
        self._window += increment
        self.outbox.grant(0, increment)

    def _greet(self) -> None:
        ours = (
            (Setting.HEADER_TABLE_SIZE, self._limits.header_table_bytes),
            (Setting.MAX_CONCURRENT_STREAMS, self._limits.max_streams),
            (Setting.INITIAL_WINDOW_SIZE, self._limits.stream_window_bytes),
            (Setting.MAX_HEADER_LIST_SIZE, MAX_HEADER_LIST_BYTES),
        )
        self.outbox.frame(SETTINGS, 0, 0, b"".join(SETTING.pack(name, value) for name, value in ours))
        increment = self._limits.connection_window_bytes - DEFAULT_WINDOW_BYTES
        if increment > 0:
            self.outbox.grant(0, increment)


def _depends_on_itself(stream_id: int) -> StreamFault:
    return StreamFault(stream_id, ErrorCode.PROTOCOL_ERROR, "a stream that depends on itself")


_Handler = Callable[[Connection, int, int, bytes], None]
_HANDLERS: tuple[_Handler, ...] = (
    Connection._on_data,
    Connection._on_headers,
    Connection._on_priority,
    Connection._on_rst_stream,
    Connection._on_settings,
    Connection._on_push_promise,
    Connection._on_ping,
    Connection._on_goaway,
    Connection._on_window_update,
    Connection._on_continuation,
    *[Connection._on_unknown] * (0xFF - CONTINUATION),
)
"""By the frame's type."""
