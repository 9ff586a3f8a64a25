"""The counters as statsd lines under the reference's names: what was added since the last report, as counters.

A report that cannot be sent is made up for by the next; response times are kept up to a bound and then dropped.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Callable, Iterable, Iterator

from headgate.logs import FIELDS
from ratelimit.statsd_settings import StatsdProtocol, StatsdSettings, TagStyle

MAX_TIMES = 10_000
"""Response times per report."""
_DATAGRAM_BYTES = 1432
"""What fits into one packet of a usual network."""
_SEND_SECONDS = 1.5
_RESPONSE_TIME = "ratelimit_server.ShouldRateLimit.response_time"
_FORBIDDEN_IN_TAGS = re.compile("[.:|]")
_log = logging.getLogger(__name__)


class StatsdReporter:
    """Sends one report a call.

    Args:
        named: reads all counters by name; they only ever grow.
    """

    def __init__(self, settings: StatsdSettings, named: Callable[[], Iterable[tuple[str, int]]]) -> None:
        self._settings = settings
        self._named = named
        self._reported: dict[str, int] = {}
        self._times: list[float] = []
        self._writer: asyncio.StreamWriter | None = None
        self._is_failing = False

    @property
    def flush_seconds(self) -> float:
        """Between two reports."""
        return self._settings.flush_seconds

    def observe_seconds(self, seconds: float) -> None:
        """Keep one call's time for the next report."""
        if len(self._times) < MAX_TIMES:
            self._times.append(seconds)

    async def report(self) -> None:
        """Send what is new."""
        counts = dict(self._named())
        lines = [*self._counters(counts), *self._timers()]
        if not lines:
            return
        try:
            async with asyncio.timeout(_SEND_SECONDS):
                await self._send(lines)
        except (OSError, TimeoutError) as error:
            self._failed(error)
        else:
            self._is_failing = False
            self._reported = counts
        self._times.clear()

    async def close(self) -> None:
        """Send what is left and hang up."""
        await self.report()
        self._hang_up()

    def _counters(self, counts: dict[str, int]) -> Iterator[bytes]:
        for name, count in counts.items():
            added = count - self._reported.get(name, 0)
            if added:
                yield self._line(name, f"{added}|c")

    def _timers(self) -> Iterator[bytes]:
        for seconds in self._times:
            yield self._line(_RESPONSE_TIME, f"{seconds * 1000:.6f}|ms")

    def _line(self, name: str, value: str) -> bytes:
        tags = sorted((key, _FORBIDDEN_IN_TAGS.sub("_", tag)) for key, tag in self._settings.tags.items())
        if self._settings.tag_style is TagStyle.IN_NAME:
            suffix = "".join(f".__{key}={tag}" for key, tag in tags)
            return f"{name}{suffix}:{value}\n".encode(errors="replace")
        suffix = "|#" + ",".join(f"{key}:{tag}" for key, tag in tags) if tags else ""
        return f"{name}:{value}{suffix}\n".encode(errors="replace")

    async def _send(self, lines: list[bytes]) -> None:
        if self._settings.protocol is StatsdProtocol.UDP:
            await self._send_datagrams(lines)
            return
        if self._writer is None or self._writer.is_closing():
            _, self._writer = await asyncio.open_connection(self._settings.host, self._settings.port)
        self._writer.write(b"".join(lines))
        await self._writer.drain()

    async def _send_datagrams(self, lines: list[bytes]) -> None:
        address = self._settings.host, self._settings.port
        transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(
            asyncio.DatagramProtocol, remote_addr=address
        )
        try:
            for datagram in packed(lines, _DATAGRAM_BYTES):
                transport.sendto(datagram)
        finally:
            transport.close()

    def _failed(self, error: Exception) -> None:
        self._hang_up()
        if not self._is_failing:
            self._is_failing = True
            text = str(error) or type(error).__name__
            _log.warning("statistics cannot be sent to statsd", extra={FIELDS: {"error": text}})

    def _hang_up(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None


def packed(lines: Iterable[bytes], most_bytes: int) -> Iterator[bytes]:
    """Whole lines in packets of at most so many bytes; a longer line is a packet of its own."""
    packet = b""
    for line in lines:
        if packet and len(packet) + len(line) > most_bytes:
            yield packet
            packet = b""
        packet += line
    if packet:
        yield packet
