"""Envoy's AccessLogService: an endless stream of batches, each entry one finished request."""

from __future__ import annotations

import asyncio

from accesslog.wire import SERVICE_NAME, parse_records
from headgate.record import RecordFeed
from headgate.transport import Call, Conversation, Service

LAST_RECORDS_SECONDS = 1.0
"""How long a draining service still listens: Envoy sends its records in batches, a fraction of a second apart."""


class AccessLogService:
    """Hands every record to the feed."""

    def __init__(self, records: RecordFeed) -> None:
        self._records = records
        self._open: set[Call] = set()

    def service(self) -> Service:
        """What a transport serves."""
        return Service(name=SERVICE_NAME, conversations={"StreamAccessLogs": self.open})

    def drain(self) -> None:
        """End the streams, which Envoy would keep open for ever, once the last records have come."""
        asyncio.get_running_loop().call_later(LAST_RECORDS_SECONDS, self._end_streams)

    def open(self, call: Call) -> Conversation:
        """A stream begins."""
        return _Batches(call, self._records, self._open)

    def _end_streams(self) -> None:
        for call in list(self._open):
            call.finish()


class _Batches:
    """One Envoy's stream; it expects no answer to any batch.

    Args:
        open_calls: where the call is kept while it lasts.
    """

    __slots__ = ("_call", "_open_calls", "_records")

    def __init__(self, call: Call, records: RecordFeed, open_calls: set[Call]) -> None:
        self._call = call
        self._records = records
        self._open_calls = open_calls
        open_calls.add(call)

    def receive(self, message: bytes) -> None:
        for record in parse_records(message):
            self._records.publish(record)

    def ended(self) -> None:
        self._open_calls.discard(self._call)
        self._call.finish()
