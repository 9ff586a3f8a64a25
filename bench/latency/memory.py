"""The sidecar's memory: after its start, and for each request that is open at once."""

from __future__ import annotations

import re
import socket
import time
import urllib.request
from contextlib import ExitStack
from dataclasses import dataclass

from bench.latency.question import HOLD_HEADER, question
from bench.latency.stage import SIDECAR, Stage
from bench.latency.upstream import HOLD_SECONDS
from bench.resources import resident_bytes
from headgate.errors import HeadgateError

_OPEN_STREAMS = re.compile(r"^headgate_open_streams (\S+)$", re.MULTILINE)
_POLL_SECONDS = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryUse:
    """The sidecar's resident memory; at the end it has served every run."""

    at_start_bytes: int
    at_end_bytes: int
    per_open_request_bytes: float


class NotHeld(HeadgateError):  # noqa: N818  (says what happened)
    """Raised when the requests that ought to be open are not."""


def sidecar_bytes(stage: Stage) -> int:
    """Its resident memory now."""
    return resident_bytes(stage.pids[SIDECAR])


def bytes_per_open_request(stage: Stage, requests: int) -> float:
    """Hold this many requests open and see how much more memory the sidecar has.

    Raises:
        NotHeld: they did not all open, or not all end.
    """
    held = question({HOLD_HEADER: "1"})
    before = sidecar_bytes(stage)
    with ExitStack() as connections:
        for _ in range(requests):
            connection = connections.enter_context(socket.create_connection(("127.0.0.1", stage.ports.envoy)))
            connection.sendall(held)
        _wait_for_open_streams(stage, requests)
        during = sidecar_bytes(stage)
    _wait_for_open_streams(stage, 0)
    return (during - before) / requests


def _wait_for_open_streams(stage: Stage, wanted: int) -> None:
    give_up_at = time.monotonic() + HOLD_SECONDS
    while (seen := _open_streams(stage)) != wanted:
        if time.monotonic() > give_up_at:
            raise NotHeld(f"{seen} requests are open in the sidecar, not {wanted}")
        time.sleep(_POLL_SECONDS)


def _open_streams(stage: Stage) -> int:
    with urllib.request.urlopen(f"{stage.admin_url}/metrics", timeout=5.0) as answer:
        found = _OPEN_STREAMS.search(answer.read().decode())
    if found is None:
        raise NotHeld("the sidecar shows no headgate_open_streams")
    return int(float(found[1]))
