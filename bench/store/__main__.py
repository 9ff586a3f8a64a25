"""`make bench-store`: every store in turn, several times over; a table, and `build/bench/store.json`."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated

import typer
from rich.console import Console

from bench.command import benchmark
from bench.machine import machine
from bench.ratelimit import servers
from bench.result import write_result
from bench.spread import Spread
from bench.store.trial import Trial, run_trial
from headgate.policy.model import OnStoreFailure
from headgate.redis.connection import connect
from headgate.redis.url import read_redis_url
from headgate.store import Store
from headgate.store.memory import MemoryStore
from headgate.store.redis.store import RedisStore
from headgate.transport.event_loop import new_event_loop

_AT_ONCE = (1, 16, 128)
_FASTER_IN_MEMORY = 10

Trials = dict[str, list[Trial]]


def main(
    rounds: Annotated[int, typer.Option(min=1, help="Rounds, in which every store has its turn.")] = 5,
    leases: Annotated[int, typer.Option(min=1000, help="Leases of each trial in Redis.")] = 4000,
) -> None:
    """Measure what it costs to take a lease and to give it back."""
    console = Console()
    with benchmark("store", console) as announce, servers.redis() as (pid, port):
        announce("taking leases")
        with asyncio.Runner(loop_factory=new_event_loop()) as runner:
            trials = runner.run(_measure(rounds, leases, pid, port))
        announce("")
        _show(trials, console)
    console.print(f"written to {write_result('store', _figures(trials))}", highlight=False)


async def _measure(rounds: int, leases: int, pid: int, port: int) -> Trials:
    trials: Trials = {}
    async with _redis_store(port) as redis:
        await run_trial(redis, leases, 16, pid)
        for _ in range(rounds):
            for at_once in _AT_ONCE:
                memory: Store = MemoryStore(time.monotonic)
                plain = await run_trial(memory, leases * _FASTER_IN_MEMORY, at_once, None)
                trials.setdefault(f"memory_{at_once}", []).append(plain)
                trials.setdefault(f"redis_{at_once}", []).append(await run_trial(redis, leases, at_once, pid))
    return trials


@asynccontextmanager
async def _redis_store(port: int) -> AsyncIterator[RedisStore]:
    store = RedisStore(
        connect(read_redis_url(f"redis://127.0.0.1:{port}")),
        on_failure=lambda: OnStoreFailure.CLOSED,
        clock=time.monotonic,
        ageing_seconds=20.0,
        deadline_seconds=5.0,
    )
    await store.start()
    try:
        yield store
    finally:
        await store.stop()


def _figures(trials: Trials) -> dict[str, object]:
    ratios = {
        f"cpu_ratio_redis_over_memory_{at_once}": Spread.of(
            there.cpu_us / here.cpu_us
            for there, here in zip(trials[f"redis_{at_once}"], trials[f"memory_{at_once}"], strict=True)
        ).median
        for at_once in _AT_ONCE
    }
    medians = {
        f"{name}_{part}": Spread.of(getattr(trial, part) for trial in rounds).median
        for name, rounds in trials.items()
        for part in ("cpu_us", "redis_cpu_us", "per_second")
    }
    return {**ratios, **medians, "trials": trials, "machine": machine()}


def _show(trials: Trials, console: Console) -> None:
    head = f"{'store, at once':16} {'CPU us a lease':>24} {'Redis us':>9} {'leases/s':>9} {'p50 ms':>8} {'p99 ms':>8}"
    console.print(head, highlight=False, soft_wrap=True)
    for name, rounds in trials.items():
        cpu = Spread.of(trial.cpu_us for trial in rounds).text(1)
        redis_cpu = Spread.of(trial.redis_cpu_us for trial in rounds).median
        rate = Spread.of(trial.per_second for trial in rounds).median
        p50 = Spread.of(trial.latency.p50_ms for trial in rounds).median
        p99 = Spread.of(trial.latency.p99_ms for trial in rounds).median
        line = f"{name:16} {cpu:>24} {redis_cpu:>9.1f} {rate:>9.0f} {p50:>8.3f} {p99:>8.3f}"
        console.print(line, highlight=False, soft_wrap=True)


if __name__ == "__main__":
    typer.run(main)
