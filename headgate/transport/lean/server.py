"""The lean server: one address, its connections, and how all of it ends."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterable

from headgate.transport import ConnectionAge, Service
from headgate.transport.lean.addresses import listen
from headgate.transport.lean.connection import Connection
from headgate.transport.lean.header_blocks import RememberedHeads
from headgate.transport.lean.limits import Limits
from headgate.transport.lean.methods import methods_of
from headgate.transport.lean.protocol import LeanProtocol
from headgate.transport.tls import Tls, server_context


class LeanServer:
    """Serves any number of services on one address.

    Args:
        limits: of every connection, in the place of the defaults; they name the message size again.
        tls: None for plain HTTP/2 with prior knowledge, as Envoy speaks it.
        max_age: of each connection; None for no limit.
    """

    def __init__(
        self,
        address: str,
        services: Iterable[Service],
        *,
        max_message_bytes: int,
        tls: Tls | None = None,
        max_age: ConnectionAge | None = None,
        limits: Limits | None = None,
    ) -> None:
        self._address = address
        self._methods = methods_of(services)
        self._limits = limits or Limits(max_message_bytes=max_message_bytes)
        self._tls = tls
        self._max_age = max_age
        self._timers: dict[LeanProtocol, asyncio.TimerHandle] = {}
        self._remembered = RememberedHeads()
        self._protocols: set[LeanProtocol] = set()
        self._all_gone = asyncio.Event()
        self._server: asyncio.Server | None = None
        self._is_draining = False

    async def start(self) -> str:
        """Listen; return the address actually bound.

        Raises:
            OSError: the address cannot be listened on.
            SettingsError: a file of the TLS settings cannot be used.
        """
        context = server_context(self._tls) if self._tls is not None else None
        self._server, address = await listen(self._address, self._accept, context)
        return address

    async def drain(self, grace_seconds: float) -> None:
        """Refuse new calls, give open ones this long to end by themselves, then close."""
        if self._server is None:
            return
        self._server.close()
        self._is_draining = True
        for timer in self._timers.values():
            timer.cancel()
        for protocol in list(self._protocols):
            protocol.drain()
        try:
            async with asyncio.timeout(grace_seconds):
                await self._gone()
        except TimeoutError:
            for protocol in list(self._protocols):
                protocol.abort()
            await self._gone()

    async def _gone(self) -> None:
        while self._protocols:
            self._all_gone.clear()
            await self._all_gone.wait()

    def _accept(self) -> asyncio.Protocol:
        connection = Connection(self._methods, self._limits, self._remembered)
        loop = asyncio.get_running_loop()
        return LeanProtocol(connection, loop, on_made=self._on_made, on_lost=self._on_lost)

    def _on_made(self, protocol: LeanProtocol) -> None:
        self._protocols.add(protocol)
        if self._is_draining:
            protocol.drain()
        elif self._max_age is not None:
            seconds = self._max_age.seconds * random.uniform(0.9, 1.1)  # noqa: S311  (no secret)
            self._timers[protocol] = asyncio.get_running_loop().call_later(seconds, self._retire, protocol)

    def _retire(self, protocol: LeanProtocol) -> None:
        assert self._max_age is not None  # noqa: S101  (only then it is called)
        seconds = self._max_age.grace_seconds
        self._timers[protocol] = asyncio.get_running_loop().call_later(seconds, protocol.abort)
        protocol.drain()

    def _on_lost(self, protocol: LeanProtocol) -> None:
        self._protocols.discard(protocol)
        timer = self._timers.pop(protocol, None)
        if timer is not None:
            timer.cancel()
        if not self._protocols:
            self._all_gone.set()
