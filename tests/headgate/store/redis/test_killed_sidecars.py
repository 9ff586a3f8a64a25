"""Sidecars in processes of their own, killed under load: what they held is free again, and no limit was exceeded."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

PATIENCE_SECONDS = 20.0
LIMIT = 9
PROGRAM = Path(__file__).parent / "sidecar_process.py"


class Sidecar:
    """One process and what it said."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.events: list[tuple[int, int]] = []
        self.killed_at: int | None = None
        self.reading = asyncio.create_task(self.read())

    async def read(self) -> None:
        assert self.process.stdout is not None
        async for line in self.process.stdout:
            word, at = line.split()
            self.events.append((int(at), 1 if word == b"+" else -1))

    async def kill(self) -> None:
        self.process.kill()
        await self.process.wait()
        self.killed_at = time.clock_gettime_ns(time.CLOCK_MONOTONIC)
        await self.reading

    def timeline(self) -> list[tuple[int, int]]:
        """What it held over time; with its death it holds nothing."""
        held = sum(change for _, change in self.events)
        end = [] if self.killed_at is None else [(self.killed_at, -held)]
        return [*self.events, *end]


async def start(port: int) -> Sidecar:
    return Sidecar(
        await asyncio.create_subprocess_exec(
            sys.executable, str(PROGRAM), f"redis://127.0.0.1:{port}", stdout=asyncio.subprocess.PIPE
        )
    )


async def until(holds: Callable[[], Any]) -> None:
    async with asyncio.timeout(PATIENCE_SECONDS):
        while True:
            result = holds()
            if await result if isinstance(result, Awaitable) else result:
                return
            await asyncio.sleep(0.01)


def most_at_once(sidecars: list[Sidecar]) -> int:
    running = most = 0
    # Of events in the same nanosecond, what ends comes first.
    for _, change in sorted(event for sidecar in sidecars for event in sidecar.timeline()):
        running += change
        most = max(most, running)
    return most


async def test_sidecars_killed_under_load_leave_nothing_behind(redis_port: int, ledger: Any, sidecar: Any) -> None:
    sidecars = [await start(redis_port) for _ in range(3)]
    try:
        await until(lambda: all(len(each.events) > 50 for each in sidecars))
        await sidecars[0].kill()
        seen = [len(each.events) for each in sidecars]
        await until(lambda: len(sidecars[1].events) > seen[1] + 50 and len(sidecars[2].events) > seen[2] + 50)
        sidecars.append(await start(redis_port))
        await until(lambda: len(sidecars[3].events) > 50)
    finally:
        for each in sidecars:
            if each.killed_at is None:
                await each.kill()

    assert LIMIT // 2 < most_at_once(sidecars) <= LIMIT
    # One that lives finds what has expired.
    await sidecar(lease_seconds=1.5)
    await until(ledger.is_empty)
