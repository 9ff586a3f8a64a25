"""A connection on an asyncio socket: bytes in, bytes out in one write a turn of the loop, and every timer."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final, cast

from headgate.transport.lean.connection import Connection
from headgate.transport.tls import ALPN

_GREETING_SECONDS: Final = 10.0
_KEEPALIVE_SECONDS: Final = 20.0
_KEEPALIVE_PATIENCE_SECONDS: Final = 10.0
_STALLED_SECONDS: Final = 30.0
_DRAIN_SECONDS: Final = 1.0
_WRITE_BUFFER_BYTES: Final = 1024 * 1024
_LINGER_SECONDS: Final = 1.0


class LeanProtocol(asyncio.Protocol):
    """One accepted connection.

    Args:
        on_made, on_lost: told when the connection begins and ends.
    """

    def __init__(
        self,
        connection: Connection,
        loop: asyncio.AbstractEventLoop,
        *,
        on_made: Callable[[LeanProtocol], None],
        on_lost: Callable[[LeanProtocol], None],
    ) -> None:
        self.connection = connection
        self._loop = loop
        self._now = loop.time
        self._on_made = on_made
        self._on_lost = on_lost
        self._transport: asyncio.Transport
        self._is_flush_due = False
        self._heard_at = 0.0
        self._expiry: asyncio.TimerHandle | None = None
        self._expires_at = 0.0
        self._keepalive: asyncio.TimerHandle | None = None
        self._stall: asyncio.TimerHandle | None = None
        self._goodbye: asyncio.TimerHandle | None = None
        self._linger: asyncio.TimerHandle | None = None
        connection.outbox.wake = self._schedule_flush

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Greet, and expect a greeting soon."""
        tls = transport.get_extra_info("ssl_object")
        if tls is not None and tls.selected_alpn_protocol() != ALPN:
            cast("asyncio.Transport", transport).abort()
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is none by type
        self._transport.set_write_buffer_limits(high=_WRITE_BUFFER_BYTES)
        self._heard_at = self._now()
        self._keepalive = self._loop.call_later(_GREETING_SECONDS, self._check_greeting)
        self._on_made(self)
        self._flush()

    def data_received(self, data: bytes) -> None:
        """Hand bytes to the connection and write what came of them."""
        if self._linger is not None:
            return
        now = self._heard_at = self._now()
        was_due, self._is_flush_due = self._is_flush_due, True
        connection = self.connection
        connection.receive(data, now)
        # What other work of this turn has scheduled to be written takes these bytes with it.
        self._is_flush_due = was_due
        if not was_due or connection.is_closed:
            self._flush()
        deadline = connection.deadlines.next
        if deadline is not None and (self._expiry is None or deadline < self._expires_at):
            self._arm(deadline)

    def eof_received(self) -> bool:
        """A peer that closes its side has left."""
        return False

    def connection_lost(self, error: Exception | None) -> None:
        """Everything on the connection is cancelled."""
        del error
        for timer in (self._expiry, self._keepalive, self._stall, self._goodbye, self._linger):
            if timer is not None:
                timer.cancel()
        self.connection.lost()
        self._on_lost(self)

    def pause_writing(self) -> None:
        """The peer reads slowly: read nothing more that would need an answer, and wait only so long."""
        self.connection.outbox.is_congested = True
        if not self._transport.is_closing():
            self._transport.pause_reading()
        self._stall = self._loop.call_later(_STALLED_SECONDS, self._transport.abort)

    def resume_writing(self) -> None:
        """The peer has read."""
        if self._stall is not None:
            self._stall.cancel()
            self._stall = None
        if not self._transport.is_closing():
            self._transport.resume_reading()
        self.connection.outbox.relieve()

    def drain(self) -> None:
        """Take no more calls, and hang up when the last one has ended."""
        self.connection.drain()
        self._goodbye = self._loop.call_later(_DRAIN_SECONDS, self._close_to_new)

    def abort(self) -> None:
        """Cancel what is open and hang up."""
        self.connection.lost()
        self._transport.close()

    def _close_to_new(self) -> None:
        self.connection.close_to_new()
        self._flush()

    def _schedule_flush(self) -> None:
        if not self._is_flush_due:
            self._is_flush_due = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._is_flush_due = False
        connection = self.connection
        if connection.outbox.parts and self._linger is None and not self._transport.is_closing():
            self._transport.write(connection.outbox.take())
        connection.close_if_drained()
        if connection.is_closed:
            self._hang_up()

    def _hang_up(self) -> None:
        """Close so that the last frames arrive: a socket closed with bytes unread would take them back."""
        if self._linger is not None or self._transport.is_closing():
            return
        if self._transport.can_write_eof():
            self._transport.write_eof()
            self._linger = self._loop.call_later(_LINGER_SECONDS, self._transport.close)
        else:
            self._transport.close()

    def _arm(self, deadline: float) -> None:
        if self._expiry is not None:
            self._expiry.cancel()
        self._expires_at = deadline
        self._expiry = self._loop.call_at(deadline, self._expire)

    def _expire(self) -> None:
        self._expiry = None
        self.connection.expire(self._now())
        deadline = self.connection.deadlines.next
        if deadline is not None:
            self._arm(deadline)

    def _check_greeting(self) -> None:
        if not self.connection.is_greeted:
            self._transport.abort()
            return
        self._check_silence()

    def _check_silence(self) -> None:
        """A peer that died without a word is noticed, and what it held released."""
        silent_seconds = self._now() - self._heard_at
        wait_seconds = _KEEPALIVE_SECONDS - silent_seconds
        if silent_seconds >= _KEEPALIVE_SECONDS + _KEEPALIVE_PATIENCE_SECONDS:
            self._transport.abort()
            return
        if wait_seconds <= 0:
            self.connection.ping()
            wait_seconds = _KEEPALIVE_PATIENCE_SECONDS
        self._keepalive = self._loop.call_later(wait_seconds, self._check_silence)
