"""A cluster of simulated engines whose limit nobody was told, behind a real sidecar and a real Envoy.

The engines batch continuously and write down what came when; who has no slot waits in them, so that a first token comes
the later, the more was sent. Their seconds are the clock's (CLOCK_MONOTONIC).
"""

from __future__ import annotations

import asyncio
import math
import signal
import sys
import time
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import Any

import httpx
import msgspec

from bench.overload.record import ReplicaRecord, SequenceRecord
from bench.overload.simulated_engine import EngineShape
from headgate.policy.load import load_policy
from headgate_cli.ports import Ports
from headgate_cli.processes import Program
from headgate_cli.render.envoy import bootstrap
from headgate_cli.render.settings import EnvoySettings
from headgate_cli.render.yaml_text import dump
from headgate_cli.stack import envoy_binary, envoy_program
from tests.chaos.stage import PATIENCE_SECONDS, Process, Sidecar, free_ports

CLUSTER = "learnt"
_LOOKS_PER_SECOND = 10


class Engines:
    """Two engines, a sidecar and an Envoy; `close` ends all of it.

    Args:
        policy: its text, with `127.0.0.1:ONE` and `127.0.0.1:TWO` for the engines.
    """

    def __init__(self, folder: Path, policy: str, shape: EngineShape, environment: Mapping[str, str]) -> None:
        self._folder = folder
        self._shape = shape
        self._exit = ExitStack()
        ports = free_ports()
        self._doors = [ports.trtllm_standard, ports.trtllm_fast]
        for word, port in zip(("ONE", "TWO"), self._doors, strict=True):
            policy = policy.replace(f"127.0.0.1:{word}", f"127.0.0.1:{port}")
        self._policy = folder / "policy.yaml"
        self._policy.write_text(policy)
        self.port = ports.envoy
        self.sidecar = Sidecar(ports)
        self.limits: list[tuple[float, int]] = []
        self._watching: asyncio.Task[None] | None = None
        self._processes = [self._begin(self._engine(number, "first")) for number in range(2)]
        parts = [self._begin(self._envoy(ports))]
        parts.append(self._begin(self.sidecar.program("headgate", self._policy, environment)))
        for process in (*self._processes, *parts):
            process.wait_ready()

    def close(self) -> None:
        """Leave no process."""
        self._exit.close()

    def kill(self, number: int) -> None:
        """An engine is gone, and all that ran on it."""
        self._processes[number].send(signal.SIGKILL)

    def bring_back(self, number: int) -> None:
        """It is there again, empty."""
        self._processes[number] = self._begin(self._engine(number, "second"))
        self._processes[number].wait_ready()

    # what is seen of the limit

    def watch(self) -> None:
        """Look at the limit, as anybody who scrapes the metrics, from now on."""
        self._watching = asyncio.create_task(self._watch())

    async def stop_watching(self) -> None:
        """Look no more."""
        if self._watching is not None:
            self._watching.cancel()
            await asyncio.wait([self._watching])

    async def limit(self) -> int | None:
        """The gauge; None where it has no series."""
        found = await self.sidecar.samples("headgate_cluster_limit")
        return next((value for labels, value in found if labels["cluster"] == CLUSTER), None)

    @property
    def last_limit(self) -> float:
        """As seen last; no limit before."""
        return self.limits[-1][1] if self.limits else math.inf

    def usual_limit(self, seconds: float) -> float | None:
        """The median of the last seconds; None while they have not passed."""
        since = time.monotonic() - seconds
        seen = [limit for moment, limit in self.limits if moment >= since]
        return median(seen) if self.limits and self.limits[0][0] <= since else None

    async def _watch(self) -> None:
        while True:
            limit = await self.limit()
            assert limit is not None
            self.limits.append((time.monotonic(), limit))
            await asyncio.sleep(1.0 / _LOOKS_PER_SECOND)

    # what the engines say

    async def sequences(self, number: int) -> list[SequenceRecord]:
        """All that an engine was asked since it began."""
        async with httpx.AsyncClient(timeout=PATIENCE_SECONDS) as client:
            answer = await client.get(f"http://127.0.0.1:{self._doors[number]}/record")
        return msgspec.json.decode(answer.content, type=ReplicaRecord).sequences

    # the parts

    def _engine(self, number: int, life: str) -> Program:
        port = self._doors[number]
        shape = msgspec.json.encode(self._shape).decode()
        return Program(
            name=f"engine-{number}-{life}",
            command=[sys.executable, "-m", "bench.overload.simulated_server", "--port", str(port), "--shape", shape],
            ready_url=f"http://127.0.0.1:{port}/health",
        )

    def _envoy(self, ports: Ports) -> Program:
        configuration = self._folder / "envoy.yaml"
        settings = EnvoySettings(
            listen=f"127.0.0.1:{ports.envoy}",
            admin=f"127.0.0.1:{ports.envoy_admin}",
            extproc=f"127.0.0.1:{ports.extproc}",
            ratelimit=f"127.0.0.1:{ports.ratelimit}",
            accesslog=f"127.0.0.1:{ports.extproc}",
        )
        document = bootstrap(load_policy(self._policy.read_bytes(), "policy.yaml"), settings)
        for cluster in document["static_resources"]["clusters"]:
            _look_again_soon(cluster)
        configuration.write_text(dump(document))
        return envoy_program(envoy_binary(), configuration, ports.envoy_admin)

    def _begin(self, program: Program) -> Process:
        process = Process(program, self._folder)
        self._exit.callback(process.stop)
        return process


def _look_again_soon(cluster: dict[str, Any]) -> None:
    """An endpoint that Envoy set aside is tried again after a second, so that nobody has to wait for it here."""
    if "outlier_detection" in cluster:
        cluster["outlier_detection"] |= {"interval": "0.5s", "base_ejection_time": "1s", "max_ejection_time": "1s"}
