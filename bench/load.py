"""A load to put on an HTTP/1.1 server, what came of it, and the process in between.

The generator is a process of its own, so that it shares no interpreter with what is measured.
"""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass

import msgspec

from headgate.errors import HeadgateError

_START_SECONDS = 10.0
_NEWEST_ANSWER_SECONDS = 30.0


class LoadFailed(HeadgateError):  # noqa: N818  (says what happened)
    """Raised when an answer is not the expected one; shows it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What to send to a port on this machine.

    Attributes:
        request: the bytes of one whole request; it is the same every time.
        expected: what the head of every answer has to hold, besides status 200.
        forbidden: what it may not hold; empty for nothing.
        seconds: how long to measure, after `warmup_seconds` that count for nothing.
        connections: closed loop: how many requests are always in flight; open loop: how many may be.
        rate_per_second: of the open loop; 0 for a closed loop, where each answer is followed by the next request.
        seed: of the open loop's arrivals.
    """

    port: int
    request: bytes
    expected: bytes
    forbidden: bytes = b""
    seconds: float
    warmup_seconds: float
    connections: int
    rate_per_second: float = 0.0
    seed: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadResult:
    """What was measured, all times in seconds.

    Attributes:
        latencies: one per request; in an open loop from the moment it was due, not from when it could be sent.
        lateness: one per request of an open loop: how much of that went by before it was sent.
        requests_total: all that were sent, those of the warm-up included.
        cpu_seconds: what generating took.
    """

    latencies: list[float]
    lateness: list[float]
    requests_total: int
    cpu_seconds: float


def run_load(load: Load) -> LoadResult:
    """Put the load on and wait for the end of it.

    Raises:
        LoadFailed: an answer was wrong or did not come.
    """
    command = [sys.executable, "-m", "bench.load_generator"]
    limit_seconds = _START_SECONDS + load.warmup_seconds + load.seconds + _NEWEST_ANSWER_SECONDS
    try:
        generator = subprocess.run(
            command, input=msgspec.json.encode(load), capture_output=True, timeout=limit_seconds, check=False
        )
    except subprocess.TimeoutExpired:
        raise LoadFailed(f"the load did not end within {limit_seconds:.0f} s") from None
    if generator.returncode:
        raise LoadFailed(generator.stderr.decode(errors="replace").strip())
    return msgspec.json.decode(generator.stdout, type=LoadResult)
