"""One JSON line a finished request, or at high rates of a share of them. Never a prompt, a path or a key."""

from __future__ import annotations

import logging
import zlib
from collections.abc import Callable

import msgspec

from headgate.logs import FIELDS
from headgate.record import Outcome, RequestRecord

SLOW_SECONDS = 10.0
"""A wait for the first byte that is always worth a line."""

_log = logging.getLogger("headgate.request")


class RequestLog:
    """Writes the lines.

    Args:
        share: of the requests that went well, how many get a line: 0.0 none .. 1.0 all. Chosen by request id, so that
            every process that sees a request chooses alike. The others always get one.
        left_out: is told of every line not written.
    """

    def __init__(self, share: float, left_out: Callable[[], None]) -> None:
        self._threshold = share * 2**32
        self._left_out = left_out

    def write(self, record: RequestRecord) -> None:
        """Write a line about this request, unless it is one of many like it."""
        if not _is_notable(record) and zlib.crc32(record.request_id.encode()) >= self._threshold:
            self._left_out()
            return
        if _log.isEnabledFor(logging.INFO):
            # Made here and not by `info`, which spends more on finding out who called it than all the rest costs.
            line = logging.LogRecord(_log.name, logging.INFO, "", 0, "request", (), None)
            setattr(line, FIELDS, _fields(record))
            _log.handle(line)


def _fields(record: RequestRecord) -> dict[str, object]:
    fields: dict[str, object] = msgspec.to_builtins(record)
    fields["usage_source"] = record.usage_source
    fields["upstream_first_byte_seconds"] = _rounded(record.upstream_first_byte_seconds)
    fields["output_token_seconds"] = _rounded(record.output_token_seconds)
    return fields


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 6)


def _is_notable(record: RequestRecord) -> bool:
    if record.outcome is not Outcome.SERVED:
        return True
    waited = record.first_byte_seconds if record.is_stream else record.queue_wait_seconds
    return waited is not None and waited >= SLOW_SECONDS
