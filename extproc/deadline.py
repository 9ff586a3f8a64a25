"""How long the client itself will wait, where it says so."""

from __future__ import annotations

import re

from extproc.headers import Headers

_READ_TIMEOUT = "x-stainless-read-timeout"
"""Sent by OpenAI's SDKs with every request, in seconds."""
_GRPC_TIMEOUT = re.compile(r"([0-9]{1,8})([HMSmun])")
_GRPC_UNITS = {"H": 3600.0, "M": 60.0, "S": 1.0, "m": 1e-3, "u": 1e-6, "n": 1e-9}
_NUMBER = re.compile(r"[0-9]{1,9}(?:\.[0-9]{1,9})?")


def client_patience_seconds(headers: Headers) -> float | None:
    """The shorter of the SDK's read timeout and gRPC's deadline, counted from the request; None without either."""
    patience = [seconds for seconds in (_read_timeout(headers), _grpc_timeout(headers)) if seconds is not None]
    return min(patience, default=None)


def _read_timeout(headers: Headers) -> float | None:
    value = headers.get(_READ_TIMEOUT)
    return float(value) if _NUMBER.fullmatch(value) else None


def _grpc_timeout(headers: Headers) -> float | None:
    match = _GRPC_TIMEOUT.fullmatch(headers.get("grpc-timeout"))
    return int(match[1]) * _GRPC_UNITS[match[2]] if match else None


def seconds_left(headers: Headers, elapsed_seconds: float) -> float | None:
    """What is left of the client's patience after some of it, negative when none is; None when it did not say."""
    patience_seconds = client_patience_seconds(headers)
    return None if patience_seconds is None else patience_seconds - elapsed_seconds
