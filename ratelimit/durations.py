"""Durations and booleans as Go writes them, because the reference's settings and files do: `10s`, `150us`, `1h30m`.

Knows text only.
"""

from __future__ import annotations

import math
import re

_UNIT_SECONDS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_PART = re.compile(r"([0-9]+(?:\.[0-9]*)?|\.[0-9]+)(ns|us|µs|μs|ms|s|m|h)")
_TRUE = frozenset(("1", "t", "T", "true", "TRUE", "True"))
_FALSE = frozenset(("0", "f", "F", "false", "FALSE", "False"))


def parse_duration(text: str) -> float:
    """Seconds of a duration (Go's `time.ParseDuration`).

    Raises:
        ValueError: it is none.
    """
    sign, rest = (-1.0, text[1:]) if text.startswith("-") else (1.0, text.removeprefix("+"))
    if rest == "0":
        return 0.0
    parts = list(_PART.finditer(rest))
    if not parts or "".join(part.group() for part in parts) != rest:
        raise ValueError(f"'{text}' is no duration such as 10s, 150ms or 1h30m")
    return sign * sum(float(part.group(1)) * _UNIT_SECONDS[part.group(2)] for part in parts)


def parse_bool(text: str) -> bool:
    """A boolean (Go's `strconv.ParseBool`).

    Raises:
        ValueError: it is none.
    """
    if text in _TRUE:
        return True
    if text in _FALSE:
        return False
    raise ValueError(f"'{text}' is neither true nor false")


def duration_text(seconds: float) -> str:
    """A duration of 0 or more in Go's form, in whole milliseconds, rounded up: `20ms`, `1s`, `6m0s`, `1h0m0.5s`."""
    milliseconds = math.ceil(round(seconds * 1000, 3))
    if milliseconds < 1000:
        return f"{milliseconds}ms" if milliseconds else "0s"
    minutes, rest = divmod(milliseconds, 60_000)
    whole, thousandths = divmod(rest, 1000)
    text = f"{whole}.{thousandths:03}".rstrip("0") + "s" if thousandths else f"{whole}s"
    if not minutes:
        return text
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes}m{text}" if hours else f"{minutes}m{text}"
