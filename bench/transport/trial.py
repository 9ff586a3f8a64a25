"""One measured run: one server, asked by Envoy through one filter under one of two loads."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from bench.latency.question import question
from bench.load import Load, run_load
from bench.percentiles import Percentiles
from bench.resources import cpu_seconds
from bench.transport.edge import EXT_PROC
from bench.transport.stage import Stage, Subject

_WARMUP_SECONDS = 0.3
# A tenant of the default policy whose tier admits as many requests at once as the closed loop has.
_KEY = "Bearer demo-acme"


class Loop(StrEnum):
    """How Envoy is asked: at fixed moments, or again as soon as it has answered."""

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
    """What one run gave; `cpu_us` is CPU time of the server process alone, per stream or call."""

    subject: Subject
    kind: str
    loop: Loop
    requests_per_second: float
    cpu_us: float
    latency: Percentiles


def run_trial(stage: Stage, plan: Plan, subject: Subject, kind: str, loop: Loop, seed: int) -> Trial:
    """Run it.

    Raises:
        LoadFailed: an answer was not the admitted one.
    """
    is_decided = subject is Subject.DECISION
    load = Load(
        port=stage.ports[kind, subject],
        request=question({"authorization": _KEY}),
        expected=b"x-decision: admit" if is_decided else b"content-length: 8",
        forbidden=b"" if is_decided else b"x-decision",
        seconds=plan.seconds,
        warmup_seconds=_WARMUP_SECONDS,
        connections=plan.connections,
        rate_per_second=plan.rate_per_second if loop is Loop.OPEN else 0.0,
        seed=seed,
    )
    before = cpu_seconds(stage.pids[subject])
    result = run_load(load)
    cpu = cpu_seconds(stage.pids[subject]) - before
    return Trial(
        subject=subject,
        kind=kind,
        loop=loop,
        requests_per_second=len(result.latencies) / plan.seconds,
        cpu_us=cpu / result.requests_total * 1e6,
        latency=Percentiles.of_seconds(result.latencies),
    )


def kinds_of_run(stage: Stage) -> list[tuple[Subject, str, Loop]]:
    """The runs of one round: the servers take turns, so that those compared lie seconds apart."""
    streams = [(subject, EXT_PROC, loop) for loop in (Loop.CLOSED, Loop.OPEN) for subject in stage.subjects]
    calls = [(Subject(subject), kind, Loop.CLOSED) for kind, subject in stage.ports if kind != EXT_PROC]
    return streams + calls
