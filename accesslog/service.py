"""Envoy's AccessLogService: an endless stream of batches, each entry one finished request."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from accesslog.wire import SERVICE_NAME, parse_records
from headgate.record import RecordFeed
from headgate.transport import Send, Service

LAST_RECORDS_SECONDS = 1.0
"""How long a draining service still listens: Envoy sends its records in batches, a fraction of a second apart."""


class AccessLogService:
    """Hands every record to the feed."""

    def __init__(self, records: RecordFeed) -> None:
        self._records = records
        self._open: set[asyncio.Task[None]] = set()
        self._is_draining = False

    def service(self) -> Service:
        """What a transport serves."""
        return Service(name=SERVICE_NAME, streams={"StreamAccessLogs": self.stream_access_logs})

    def drain(self) -> None:
        """End the streams, which Envoy would keep open for ever, once the last records have come."""
        self._is_draining = True
        asyncio.get_running_loop().call_later(LAST_RECORDS_SECONDS, self._end_streams)

    async def stream_access_logs(self, messages: AsyncIterator[bytes], send: Send) -> None:
        """Read batches until Envoy closes the stream; it expects no answer to any."""
        del send
        task = asyncio.current_task()
        assert task is not None  # noqa: S101  (a coroutine always runs in one)
        self._open.add(task)
        try:
            await self._read(messages)
        except asyncio.CancelledError:
            if not self._is_draining:
                raise
        finally:
            self._open.discard(task)

    def _end_streams(self) -> None:
        for task in self._open:
            task.cancel()

    async def _read(self, messages: AsyncIterator[bytes]) -> None:
        async for message in messages:
            for record in parse_records(message):
                self._records.publish(record)
