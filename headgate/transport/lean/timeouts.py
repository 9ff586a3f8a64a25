"""The `grpc-timeout` header: at most eight digits and a unit (gRPC over HTTP/2, "Timeout")."""

from __future__ import annotations

import re

_TIMEOUT = re.compile(rb"([0-9]{1,8})([HMSmun])")
_UNIT_SECONDS = {b"H": 3600.0, b"M": 60.0, b"S": 1.0, b"m": 1e-3, b"u": 1e-6, b"n": 1e-9}


def parse_timeout(value: bytes) -> float | None:
    """Seconds; None when the value is not a timeout."""
    match = _TIMEOUT.fullmatch(value)
    if match is None:
        return None
    return int(match[1]) * _UNIT_SECONDS[match[2]]
