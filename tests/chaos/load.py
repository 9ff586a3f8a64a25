"""A cluster with a limit, as much on it as it takes, and a line before it."""

from __future__ import annotations

from tests.chaos.crowd import Visit, all_over
from tests.chaos.stage import Sidecar, Stage, script, tenants, until

LIMIT = 40
COMING = 300
POLICY = f"""
apiVersion: headgate/v1
identity: [{{api_key: {{header: authorization}}}}]
tenants:
{tenants(acme="premium", globex="premium")}
tiers:
  premium: {{priority: 0, queue: {{max_wait: 600s, max_depth: 1000}}, on_overload: [queue, reject]}}
models: {{assistant: {{routes: [{{cluster: big}}]}}}}
clusters:
  big: {{protocol: openai, model: m, endpoints: ["127.0.0.1:BIG"], capacity: {{requests: {LIMIT}}}}}
"""


def visits(count: int, first: int = 0, **changes: float) -> list[Visit]:
    """Some of both tenants, all of whom stay to the end."""
    names = ["acme", "globex"]
    return [
        Visit(script(first + number, names[number % 2], "premium", **changes), names[number % 2])
        for number in range(count)
    ]


async def under_load(stage: Stage, sidecar: Sidecar, port: int) -> list[Visit]:
    """As many as may run do, and many more wait."""
    await stage.record("close")
    coming = visits(COMING)
    await stage.send(port, coming)
    await until(lambda: _is_full(stage, sidecar), "the cluster is full and a line stands before it")
    return coming


async def _is_full(stage: Stage, sidecar: Sidecar) -> bool:
    waiting = await sidecar.total("headgate_queue_depth")
    return (await stage.running("cluster:big"), waiting) == (LIMIT, COMING - LIMIT)


async def serve_some_more(stage: Stage, port: int) -> None:
    """Whatever has happened: who comes now is served, as many at a time as the limit says."""
    await stage.record("open")
    await stage.record("forget")
    coming = visits(3 * LIMIT, first=10_000)
    await stage.send(port, coming)
    await all_over(coming)
    assert all(visit.is_served for visit in coming)
    assert (await stage.record()).most["cluster:big"] == LIMIT
