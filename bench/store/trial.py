"""One store asked in one way, and what that cost this process and Redis."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass

from bench.percentiles import Percentiles
from bench.resources import cpu_seconds
from headgate.store import Lease, LeaseRequest, Refused, Store

_REQUEST = LeaseRequest(
    tenant="acme",
    tier="premium",
    cluster="best",
    tokens=1000,
    tenant_limit=10_000,
    tier_limit=10_000,
    cluster_limit=100_000,
    cluster_token_limit=1_000_000_000,
    reserved={"premium": 0.25, "interactive": 0.1},
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """Leases taken and given back.

    Attributes:
        cpu_us: of this process for one lease, taken and given back.
        redis_cpu_us: of Redis for the same.
        latency: from the question to its answer.
    """

    cpu_us: float
    redis_cpu_us: float
    per_second: float
    latency: Percentiles


async def run_trial(store: Store, count: int, at_once: int, redis_pid: int | None) -> Trial:
    """Take and give back `count` leases, `at_once` of them side by side."""
    latencies: list[float] = []
    redis_before = cpu_seconds(redis_pid) if redis_pid else 0.0
    cpu_before, began_at = time.process_time(), time.perf_counter()
    await asyncio.gather(*(_ask_on(store, count // at_once, latencies) for _ in range(at_once)))
    seconds, cpu = time.perf_counter() - began_at, time.process_time() - cpu_before
    redis_cpu = cpu_seconds(redis_pid) - redis_before if redis_pid else 0.0
    done = len(latencies)
    return Trial(
        cpu_us=cpu / done * 1e6,
        redis_cpu_us=redis_cpu / done * 1e6,
        per_second=done / seconds,
        latency=Percentiles.of_seconds(latencies),
    )


async def _ask_on(store: Store, count: int, latencies: list[float]) -> None:
    loop = asyncio.get_running_loop()
    for _ in range(count):
        answered: asyncio.Future[Lease | Refused | None] = loop.create_future()
        asked_at = time.perf_counter()
        store.acquire(_REQUEST, answered.set_result)
        answer = await answered
        latencies.append(time.perf_counter() - asked_at)
        assert isinstance(answer, Lease), answer
        store.release(answer)
