"""Logs as one JSON object a line on standard error. Never a prompt, never a key."""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime

import msgspec

FIELDS = "fields"
"""The key of `extra` under which a record carries its structured fields."""


class JsonFormatter(logging.Formatter):
    """`time`, `level`, `logger`, `message`, then the record's own fields."""

    def format(self, record: logging.LogRecord) -> str:
        """One line."""
        line: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        line |= getattr(record, FIELDS, {})
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        try:
            return msgspec.json.encode(line, enc_hook=str).decode()
        except UnicodeEncodeError:
            # Half a surrogate pair is no UTF-8; the standard library writes it as an escape.
            return json.dumps(line, default=str)


def configure_logs(level: str) -> None:
    """Send every log of the process through the formatter."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter())
    logging.basicConfig(level=level, handlers=[handler], force=True)
