"""Logs as the reference writes them, for those whose collectors expect that: LOG_LEVEL and LOG_FORMAT.

Without the two settings logs are Headgate's own.
"""

from __future__ import annotations

import json
import logging
import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum

import msgspec

from headgate.errors import SettingsError
from headgate.logs import FIELDS
from ratelimit.environment import Environment

_LEVELS = {
    "panic": logging.CRITICAL,
    "fatal": logging.CRITICAL,
    "error": logging.ERROR,
    "warn": logging.WARNING,
    "warning": logging.WARNING,
    "info": logging.INFO,
    "debug": logging.DEBUG,
    "trace": logging.DEBUG,
}


class LogFormat(StrEnum):
    """What a line looks like."""

    TEXT = "text"
    JSON = "json"


@dataclass(frozen=True, slots=True)
class LogSettings:
    """None for what Headgate's own settings say."""

    level: int | None = None
    format: LogFormat | None = None


def read_log_settings(environment: Environment) -> LogSettings:
    """LOG_LEVEL and LOG_FORMAT.

    Raises:
        SettingsError: no such level or format.
    """
    level, form = environment.text("LOG_LEVEL").lower(), environment.text("LOG_FORMAT").lower()
    if level and level not in _LEVELS:
        raise SettingsError(f"LOG_LEVEL: has to be one of {', '.join(_LEVELS)}, not '{level}'")
    if form and form not in tuple(LogFormat):
        raise SettingsError(f"LOG_FORMAT: has to be text or json, not '{form}'")
    return LogSettings(_LEVELS[level] if level else None, LogFormat(form) if form else None)


def apply_log_settings(settings: LogSettings, *, level: bool = True) -> None:
    """From now on the process logs as these settings say.

    Args:
        level: whether their level counts, or another one has been chosen.
    """
    root = logging.getLogger()
    if level and settings.level is not None:
        root.setLevel(settings.level)
    if settings.format is not None:
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(ReferenceFormatter(settings.format))
        root.handlers[:] = [handler]


class ReferenceFormatter(logging.Formatter):
    """`time="..." level=info msg="..." key=value`, or a JSON object with `@timestamp`, `level`, `@message`."""

    def __init__(self, form: LogFormat) -> None:
        super().__init__()
        self._format = form

    def format(self, record: logging.LogRecord) -> str:
        """One line."""
        time = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
        fields: dict[str, object] = dict(getattr(record, FIELDS, {}))
        if record.exc_info:
            fields["exception"] = self.formatException(record.exc_info)
        if self._format is LogFormat.JSON:
            known = {"@timestamp": time, "level": record.levelname.lower(), "@message": record.getMessage()}
            return msgspec.json.encode(known | fields, enc_hook=str).decode()
        known = {"time": time, "level": record.levelname.lower(), "msg": record.getMessage()}
        return " ".join(f"{key}={_text(value)}" for key, value in (known | fields).items())


def _text(value: object) -> str:
    text = value if isinstance(value, str) else json.dumps(value, default=str)
    is_bare = bool(text) and all(character.isalnum() or character in "-._/@^+:" for character in text)
    return text if is_bare and not isinstance(value, dict | list) else json.dumps(text, ensure_ascii=False)
