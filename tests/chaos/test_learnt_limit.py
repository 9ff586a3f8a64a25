"""`capacity: auto` behind a real Envoy: nobody says how much the engines run, and the limit is theirs all the same.

The engines' own records say what first tokens took; the limit is read where an operator reads it.
"""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from statistics import median
from typing import Any

import pytest

from bench.overload.simulated_engine import EngineShape
from tests.chaos.engines import Engines
from tests.chaos.gossip import Gossip
from tests.chaos.pressure import Pressure
from tests.chaos.stage import until

NewEngines = Callable[..., Engines]
SHAPE = EngineShape(
    slots=24,
    kv_tokens=1_000_000,
    step_seconds=0.020,
    step_per_sequence_seconds=0.00005,
    prefill_per_token_seconds=0.00003,
)
"""An answer takes half a second, and so a step of the limit a few; an iteration, longer than a busy machine stalls."""
SLOTS = 2 * SHAPE.slots
START = 32
CLIENTS = 150
POLICY = """
apiVersion: headgate/v1
identity: [{api_key: {header: authorization}}]
tenants: {acme: {tier: premium, api_key_sha256: ["%s"]}}
tiers: {premium: {priority: 0, queue: {max_wait: 60s, max_depth: 1000}, on_overload: [queue, reject]}}
models: {assistant: {routes: [{cluster: learnt}]}}
clusters:
  learnt: {protocol: openai, model: m, endpoints: ["127.0.0.1:ONE", "127.0.0.1:TWO"], capacity: auto%s}
"""
KEY = hashlib.sha256(b"bench-acme").hexdigest()
FOUND_SECONDS, FOLLOWED_SECONDS, REGAINED_SECONDS = 45.0, 30.0, 45.0
"""Some eighty answers' time, fifty, and eighty again; alone on two cores it takes 10, 3 and 7 seconds."""
SETTLED_SECONDS = 2.0
ENOUGH = 150
CONGESTED = 20
"""Were all clients let through, a first token would take fifty times as long as without any other request."""
QUICK_SIGNALS = {
    "HEADGATE_SIGNAL_INTERVAL_SECONDS": "0.1",
    "HEADGATE_SIGNAL_TIMEOUT_SECONDS": "0.5",
    "HEADGATE_SIGNAL_STALE_SECONDS": "1",
}
NOBODYS_PORT = 9


@pytest.fixture
async def new_engines(tmp_path: Path) -> AsyncIterator[NewEngines]:
    """Engines, sidecar and Envoy, of which nothing is left at the end."""
    async with AsyncExitStack() as stack:

        def new(metrics: str = "", environment: Mapping[str, str] | None = None) -> Engines:
            engines = Engines(tmp_path, POLICY % (KEY, metrics), SHAPE, environment or {})
            stack.callback(engines.close)
            stack.push_async_callback(engines.stop_watching)
            return engines

        yield new


def is_found(engines: Engines, slots: int, margin: float, alone_seconds: float, *numbers: int) -> Callable[[], Any]:
    """Whether the limit has been near so many slots, most of the last seconds, and first tokens have come in time."""

    async def holds() -> bool:
        limit = engines.usual_limit(SETTLED_SECONDS)
        if limit is None or not (1 - margin) * slots <= limit <= (1 + margin) * slots:
            return False
        since = time.monotonic() - SETTLED_SECONDS
        return await first_token_seconds(engines, since, *numbers) < CONGESTED * alone_seconds

    return holds


async def first_token_seconds(engines: Engines, since: float, *numbers: int) -> float:
    """What it usually took by these engines' account, of what they were sent since; for ever when that was nothing."""
    sent = [sequence for number in numbers for sequence in await engines.sequences(number)]
    seconds = [s.first_token_at - s.arrived_at for s in sent if s.first_token_at is not None and s.arrived_at >= since]
    return median(seconds) if seconds else math.inf


async def test_the_limit_is_found_and_follows_engines_that_vanish_and_come_back(new_engines: NewEngines) -> None:
    engines = new_engines()
    alone = Pressure(engines.port, "acme", clients=1, seed=1)
    alone.start()
    await until(lambda: len(alone.answers) >= 6, "some had the engines for themselves")
    await alone.stop()
    alone_seconds = await first_token_seconds(engines, 0.0, 0, 1)
    crowd = Pressure(engines.port, "acme", CLIENTS, seed=2)
    engines.watch()
    assert await engines.limit() == START

    crowd.start()
    both = is_found(engines, SLOTS, 0.27, alone_seconds, 0, 1)
    await until(both, "the limit is what the engines run at once", FOUND_SECONDS)
    assert {answer.status for answer in crowd.answers} == {200}

    engines.kill(1)
    one = is_found(engines, SLOTS // 2, 0.5, alone_seconds, 0)
    await until(one, "the limit is what is left", FOLLOWED_SECONDS)
    followed_at = time.monotonic()
    await until(lambda: crowd.served_since(followed_at) >= ENOUGH, "many were served since")
    assert {answer.status for answer in crowd.answers if answer.at > followed_at} == {200}

    engines.bring_back(1)
    await until(both, "the limit is what it was", REGAINED_SECONDS)
    await crowd.stop()
    await until(engines.sidecar.holds_nothing, "all is given back")


async def test_servers_that_say_they_are_full_and_then_nothing_any_more_stop_nobody(new_engines: NewEngines) -> None:
    gossip = Gossip()
    async with await gossip.start():
        places = f"127.0.0.1:{gossip.port}/metrics, 127.0.0.1:{NOBODYS_PORT}/metrics"
        engines = new_engines(f", metrics: [{places}]", QUICK_SIGNALS)
        crowd = Pressure(engines.port, "acme", CLIENTS, seed=3)
        gossip.waiting = 20 * SLOTS
        engines.watch()
        crowd.start()
        await until(lambda: engines.last_limit <= START // 8, "they are believed")
        believed_at = time.monotonic()
        await until(lambda: crowd.served_since(believed_at) >= 20, "requests run all the same")

        gossip.waiting = None
        await until(lambda: _says_nothing(engines), "what they said is stale")
        silent_at = time.monotonic()
        await until(lambda: crowd.served_since(silent_at) >= 20, "requests go on")
        await until(lambda: engines.last_limit >= START, "the limit is found by first tokens again", REGAINED_SECONDS)
        await crowd.stop()

    assert {answer.status for answer in crowd.answers} == {200}
    await until(engines.sidecar.holds_nothing, "all is given back")


async def _says_nothing(engines: Engines) -> bool:
    return not await engines.sidecar.samples("headgate_server_queue_depth")
