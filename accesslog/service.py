"""Envoy's AccessLogService: an endless stream of batches, each entry one finished request."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable

from accesslog.record import RequestRecord
from accesslog.wire import SERVICE_NAME, parse_records
from headgate.transport import Send, Service

_log = logging.getLogger("headgate.accesslog")


class AccessLogService:
    """Hands every record to `report`; one that fails is logged and costs the others nothing."""

    def __init__(self, *, report: Callable[[RequestRecord], None]) -> None:
        self._report = report

    def service(self) -> Service:
        """What a transport serves."""
        return Service(name=SERVICE_NAME, streams={"StreamAccessLogs": self.stream_access_logs})

    async def stream_access_logs(self, messages: AsyncIterator[bytes], send: Send) -> None:
        """Read batches until Envoy closes the stream; it expects no answer to any."""
        del send
        async for message in messages:
            for record in parse_records(message):
                try:
                    self._report(record)
                except Exception:  # noqa: BLE001  (the outermost frame of a record)
                    _log.exception("a record could not be counted")
