"""One measured run: one of the two Envoys under one of the two loads."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from enum import StrEnum

from bench.latency.question import question
from bench.latency.stage import ENVOY_ALONE, ENVOY_WITH_HEADGATE, SIDECAR, Stage
from bench.load import Load, LoadResult, run_load
from bench.percentiles import Percentiles, nearest_rank
from bench.resources import busy_seconds, cpu_seconds

_DECISION = b"\r\nx-headgate-decision:"
_ADMITTED = _DECISION + b" admit\r\n"
_WARMUP_SECONDS = 0.5
# Envoy hands over its last access log records up to 0.25 s after the last answer.
_SETTLE_SECONDS = 0.5


class Mode(StrEnum):
    """Which Envoy is asked."""

    ENVOY_ALONE = "envoy_alone"
    HEADGATE = "headgate"


class Loop(StrEnum):
    """How it is asked: at fixed moments, or again as soon as it has answered."""

    OPEN = "open"
    CLOSED = "closed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The benchmark's options; `seconds` is the measured part of each run."""

    seconds: float
    rounds: int
    rate_per_second: float
    connections: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """What one run gave.

    Attributes:
        late_p99_ms: how late the generator itself was (open loop), contained in the latencies.
        sidecar_cpu_us: CPU per request of the sidecar; `envoy_cpu_us` of the Envoy asked, `client_cpu_us` of the load.
        other_cpu_cores: how many cores were busy with anything that is no part of the benchmark.
    """

    mode: Mode
    loop: Loop
    requests: int
    requests_per_second: float
    latency: Percentiles
    late_p99_ms: float
    sidecar_cpu_us: float
    envoy_cpu_us: float
    client_cpu_us: float
    other_cpu_cores: float


def run_trial(stage: Stage, plan: Plan, mode: Mode, loop: Loop, seed: int) -> Trial:
    """Run it.

    Raises:
        LoadFailed: an answer was not 200, or had no decision where one was due.
    """
    load = _load(stage, plan, mode, loop, seed)
    before = _CpuReading.now(stage)
    result = run_load(load)
    time.sleep(_SETTLE_SECONDS)
    return _trial(mode, loop, load, result, _CpuReading.now(stage).since(before))


def _load(stage: Stage, plan: Plan, mode: Mode, loop: Loop, seed: int) -> Load:
    is_headgate = mode is Mode.HEADGATE
    return Load(
        port=stage.ports.envoy if is_headgate else stage.ports.envoy_alone,
        request=question(),
        expected=_ADMITTED if is_headgate else b"",
        forbidden=b"" if is_headgate else _DECISION,
        seconds=plan.seconds,
        warmup_seconds=_WARMUP_SECONDS,
        connections=plan.connections,
        rate_per_second=plan.rate_per_second if loop is Loop.OPEN else 0.0,
        seed=seed,
    )


def _trial(mode: Mode, loop: Loop, load: Load, result: LoadResult, used: _CpuReading) -> Trial:
    envoy = ENVOY_WITH_HEADGATE if mode is Mode.HEADGATE else ENVOY_ALONE

    def per_request_us(seconds: float) -> float:
        return seconds / result.requests_total * 1e6

    ours = sum(used.processes.values()) + used.benchmark + result.cpu_seconds
    return Trial(
        mode=mode,
        loop=loop,
        requests=len(result.latencies),
        requests_per_second=len(result.latencies) / load.seconds,
        latency=Percentiles.of_seconds(result.latencies),
        late_p99_ms=nearest_rank(sorted(result.lateness), 99) * 1000 if result.lateness else 0.0,
        sidecar_cpu_us=per_request_us(used.processes[SIDECAR]),
        envoy_cpu_us=per_request_us(used.processes[envoy]),
        client_cpu_us=per_request_us(result.cpu_seconds),
        other_cpu_cores=max(0.0, used.machine - ours) / used.moment,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _CpuReading:
    """CPU seconds of all that counts here, and the moment they were read."""

    moment: float
    machine: float
    benchmark: float
    processes: dict[str, float]

    @classmethod
    def now(cls, stage: Stage) -> _CpuReading:
        return cls(
            moment=time.monotonic(),
            machine=busy_seconds(),
            benchmark=cpu_seconds(os.getpid()),
            processes={name: cpu_seconds(pid) for name, pid in stage.pids.items()},
        )

    def since(self, before: _CpuReading) -> _CpuReading:
        return _CpuReading(
            moment=self.moment - before.moment,
            machine=self.machine - before.machine,
            benchmark=self.benchmark - before.benchmark,
            processes={name: seconds - before.processes[name] for name, seconds in self.processes.items()},
        )
