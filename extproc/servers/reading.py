"""One answer of one model server, and what several come to for a cluster. None stands for "does not say"."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean

WAITING_WHEN_FULL = 5
"""A server with so many requests in its own queue is full (the llm-d router's default)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """What a server says of itself.

    Attributes:
        is_ready: whether it, and the cluster's models in it, take requests.
        waiting: requests in its own queue.
        running: requests it works on.
        slots: how many it works on at most.
        kv_cache_usage: used share of its key/value cache, 0.0 .. 1.0.
        gpu_utilization: of its busiest GPU, 0.0 .. 1.0.
        queue_seconds: mean time in its own queue, of requests since the reading before.
        is_triton_page: a Triton's page is there whether or not its models are: its gRPC API tells.
    """

    is_ready: bool | None = None
    waiting: int | None = None
    running: int | None = None
    slots: int | None = None
    kv_cache_usage: float | None = None
    gpu_utilization: float | None = None
    queue_seconds: float | None = None
    is_triton_page: bool = False


def combine(readings: Sequence[Reading]) -> Reading:
    """One reading for the whole cluster: requests add up, shares are means over those who tell."""
    ready = [reading.is_ready for reading in readings if reading.is_ready is not None]
    return Reading(
        is_ready=all(ready) if ready else None,
        waiting=_total(reading.waiting for reading in readings),
        running=_total(reading.running for reading in readings),
        slots=_total(reading.slots for reading in readings),
        kv_cache_usage=_mean(reading.kv_cache_usage for reading in readings),
        gpu_utilization=_mean(reading.gpu_utilization for reading in readings),
        queue_seconds=_mean(reading.queue_seconds for reading in readings),
    )


def saturation(readings: Sequence[Reading]) -> float:
    """0.0 idle .. 1.0 full: the worst of their queues, their caches and their absence.

    How many run is left out: the ledger knows it better, and at once.
    """
    queue = _mean(min(1.0, r.waiting / WAITING_WHEN_FULL) for r in readings if r.waiting is not None)
    cache = _mean(reading.kv_cache_usage for reading in readings)
    absent = _mean(0.0 if reading.is_ready else 1.0 for reading in readings if reading.is_ready is not None)
    return min(1.0, max(share or 0.0 for share in (queue, cache, absent)))


def is_unavailable(readings: Sequence[Reading | None]) -> bool:
    """Whether none of a cluster's servers takes requests, by what those say that are there.

    Silence (None) is no such word: its server may be busy. Nor is a page that is there and tells of no readiness.
    """
    told = [reading for reading in readings if reading is None or not reading.is_triton_page]
    if not told:
        return not readings
    return all(reading is not None and reading.is_ready is False for reading in told)


def _total(values: Iterable[int | None]) -> int | None:
    told = [value for value in values if value is not None]
    return sum(told) if told else None


def _mean(values: Iterable[float | None]) -> float | None:
    told = [value for value in values if value is not None]
    return fmean(told) if told else None
