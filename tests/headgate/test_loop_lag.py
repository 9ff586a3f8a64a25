"""The probe of the event loop: late is late by as much as the loop stood still."""

from __future__ import annotations

import asyncio
import time

from headgate.loop_lag import LoopLag


async def test_a_loop_that_stands_still_is_seen_to_lag_as_long() -> None:
    seen: asyncio.Queue[float] = asyncio.Queue()
    lag = LoopLag(seen.put_nowait)
    lag.start()

    time.sleep(0.6)  # noqa: ASYNC251  (standing still is what is tested)
    late = await seen.get()
    lag.stop()

    assert 0.3 <= late < 5.0


async def test_a_stopped_probe_asks_for_nothing_more() -> None:
    loop = asyncio.get_running_loop()
    lag = LoopLag(lambda _: None)
    lag.start()
    pending = lag._next
    lag.stop()

    assert pending is not None
    assert pending.cancelled()
    assert pending.when() > loop.time() - 1.0
