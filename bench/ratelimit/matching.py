"""What finding a limit costs, without gRPC, in configurations of different sizes."""

from __future__ import annotations

import time
from collections.abc import Sequence

from ratelimit.limiter import plan
from ratelimit.limits import Descriptor, Entry, Limit, RateLimitRequest, Unit
from ratelimit.matching import Configuration, ConfiguredDescriptor, Domain

SIZES = (10, 1_000, 100_000)
_ASKED = 10
"""Distinct requests, spread over the whole configuration; as many in each, so that all are equally cached."""
_ROUNDS = 300
_REPEATS = 15


def match_nanoseconds(sizes: Sequence[int] = SIZES) -> dict[int, float]:
    """Nanoseconds per request with one descriptor of two entries, the best of several repeats taken in turns."""
    subjects = {size: (_configuration(size), _requests(size)) for size in sizes}
    best = dict.fromkeys(sizes, float("inf"))
    for _ in range(_REPEATS):
        for size, (configuration, requests) in subjects.items():
            best[size] = min(best[size], _once(configuration, requests))
    return best


def _once(configuration: Configuration, requests: Sequence[RateLimitRequest]) -> float:
    started_at = time.perf_counter_ns()
    for _ in range(_ROUNDS):
        for request in requests:
            plan(request, configuration)
    return (time.perf_counter_ns() - started_at) / (_ROUNDS * len(requests))


def _configuration(size: int) -> Configuration:
    limit = Limit(requests_per_unit=10, unit=Unit.MINUTE)
    paths = (ConfiguredDescriptor(key="path", limit=limit), ConfiguredDescriptor(key="path", value="/a*", limit=limit))
    tenants = [ConfiguredDescriptor(key="tenant", value=f"tenant-{at:06}", descriptors=paths) for at in range(size)]
    return Configuration({"bench": Domain("bench", tenants)})


def _requests(size: int) -> list[RateLimitRequest]:
    return [
        RateLimitRequest(
            domain="bench",
            descriptors=(
                Descriptor(entries=(Entry("tenant", f"tenant-{at * size // _ASKED:06}"), Entry("path", "/abc"))),
            ),
        )
        for at in range(_ASKED)
    ]
