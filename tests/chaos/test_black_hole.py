"""A model server that is killed, behind a real Envoy: its cluster is idle then, and draws nobody by that."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from headgate_cli.processes import Program
from tests.chaos.conftest import NewStage
from tests.chaos.crowd import Verdict, Visit, all_over
from tests.chaos.stage import Process, Shape, Sidecar, Stage, free_ports, script, tenants, until

TENANTS = {"acme": "premium", "globex": "interactive", "hobby": "best_effort", "blind": "interactive"}
POLICY = f"""
apiVersion: headgate/v1
identity: [{{api_key: {{header: authorization}}}}]
tenants:
{tenants(**TENANTS)}
tiers:
  premium: {{priority: 0, queue: {{max_wait: 30s, max_depth: 100}}, on_overload: [queue, degrade, reject]}}
  interactive: {{priority: 1, on_overload: [degrade, reject]}}
  best_effort: {{priority: 2, on_overload: [reject]}}
models:
  assistant:
    routes:
      - {{when: 'tier == "best_effort" && saturation("standard") > 0.8', cluster: fast, reason: standard_saturated}}
      - {{when: 'tenant == "blind"', cluster: unwatched}}
      - {{cluster: standard}}
    degrade: [fast]
clusters:
  standard: {{protocol: openai, model: m, endpoints: ["127.0.0.1:ENGINE"], metrics: "127.0.0.1:ENGINE"}}
  unwatched: {{protocol: openai, model: m, endpoints: ["127.0.0.1:ENGINE"]}}
  fast: {{protocol: openai, model: m, endpoints: ["127.0.0.1:SMALL"]}}
"""

StartEngine = Callable[[], Process]


@pytest.fixture
def engine_port() -> int:
    return free_ports().trtllm_standard


@pytest.fixture
def start_engine(tmp_path: Path, engine_port: int) -> Iterator[StartEngine]:
    """A stand-in for trtllm-serve, at the same port each time."""
    started: list[Process] = []

    def start() -> Process:
        module = "headgate_cli.trtllm_serve_standin"
        options = ["--model", "m", "--port", str(engine_port), "--tokens-per-second", "1000"]
        program = Program(
            name=f"engine-{len(started)}",
            command=[sys.executable, "-m", module, *options],
            ready_url=f"http://127.0.0.1:{engine_port}/health",
        )
        started.append(Process(program, tmp_path))
        return started[-1]

    yield start
    for process in started:
        process.stop()


async def test_a_cluster_whose_server_is_killed_is_degraded_from_until_it_is_back(
    new_stage: NewStage, start_engine: StartEngine, engine_port: int
) -> None:
    engine = start_engine()
    policy = POLICY.replace("ENGINE", str(engine_port))
    stage = new_stage(Shape(policy, sidecar_environment={"HEADGATE_SIGNAL_INTERVAL_SECONDS": "0.1"}))
    cast = stage.start()
    engine.wait_ready()
    await until(lambda: _is_answering(cast.sidecar), "the sidecar has heard the server")

    before = await _ask(stage, cast.port, 0)
    engine.send(signal.SIGKILL)
    await until(lambda: _is_gone(cast.sidecar), "the sidecar has seen that the server is gone")
    meanwhile = await _ask(stage, cast.port, 10)
    start_engine().wait_ready()
    await until(lambda: _is_answering(cast.sidecar), "the sidecar has seen that it is back")
    afterwards = await _ask(stage, cast.port, 20)

    home = (200, Verdict.ADMIT, "")
    assert set(before.values()) == {home}
    assert meanwhile == {
        "acme": (200, Verdict.DEGRADE, "cluster_unavailable"),
        "globex": (200, Verdict.DEGRADE, "cluster_unavailable"),
        "hobby": (200, Verdict.DEGRADE, "standard_saturated"),
        "blind": (503, Verdict.ADMIT, ""),
    }
    assert {name: afterwards[name] for name in ("acme", "globex", "hobby")} == dict.fromkeys(
        ("acme", "globex", "hobby"), home
    )
    assert set((await stage.record()).attempts) == {"10", "11", "12"}, "the cheaper cluster ran what was sent there"


async def _ask(stage: Stage, port: int, first: int) -> dict[str, tuple[int, Verdict | None, str]]:
    """One request of every tenant, and what it was told."""
    coming = [Visit(script(first + n, *who), who[0]) for n, who in enumerate(TENANTS.items())]
    await stage.send(port, coming)
    await all_over(coming)
    assert all(visit.is_served for visit in coming if visit.status == 200)
    return {visit.key: (visit.status, visit.verdict, visit.reason) for visit in coming}


async def _is_gone(sidecar: Sidecar) -> bool:
    return await sidecar.samples("headgate_server_ready") == [({"cluster": "standard"}, 0)]


async def _is_answering(sidecar: Sidecar) -> bool:
    return bool(await sidecar.samples("headgate_server_slots"))
