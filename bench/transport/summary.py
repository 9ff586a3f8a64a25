"""Many runs -> the few ratios that say what the transport costs. Each compares two runs of the same round."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from bench.spread import Spread
from bench.transport.edge import EXT_PROC, RATE_LIMIT
from bench.transport.stage import Subject
from bench.transport.trial import Loop, Trial

Round = Sequence[Trial]


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """CPU of the server per stream over that of another, in a closed loop unless `open`; None where a peer could not be
    built.
    """

    noop_cpu_ratio_lean_over_grpcio: Spread
    noop_cpu_ratio_lean_over_grpcgo: Spread | None
    decision_cpu_ratio_over_grpcgo_noop: Spread | None
    open_noop_cpu_ratio_lean_over_grpcio: Spread
    open_noop_cpu_ratio_lean_over_grpcgo: Spread | None
    open_decision_cpu_ratio_over_grpcgo_noop: Spread | None
    unary_cpu_ratio_lean_over_grpcio: Spread
    unary_cpu_ratio_lean_over_grpcgo: Spread | None


def summarize(rounds: Sequence[Round]) -> Summary:
    """The figures of at least one round."""
    has_go = any(trial.subject is Subject.GRPCGO for trial in rounds[0])

    def ratio(one: Subject, other: Subject, kind: str = EXT_PROC, loop: Loop = Loop.CLOSED) -> Spread:
        return Spread.of(_cpu(trials, one, kind, loop) / _cpu(trials, other, kind, loop) for trials in rounds)

    def over_go(one: Subject, kind: str = EXT_PROC, loop: Loop = Loop.CLOSED) -> Spread | None:
        return ratio(one, Subject.GRPCGO, kind, loop) if has_go else None

    return Summary(
        noop_cpu_ratio_lean_over_grpcio=ratio(Subject.LEAN, Subject.GRPCIO),
        noop_cpu_ratio_lean_over_grpcgo=over_go(Subject.LEAN),
        decision_cpu_ratio_over_grpcgo_noop=over_go(Subject.DECISION),
        open_noop_cpu_ratio_lean_over_grpcio=ratio(Subject.LEAN, Subject.GRPCIO, loop=Loop.OPEN),
        open_noop_cpu_ratio_lean_over_grpcgo=over_go(Subject.LEAN, loop=Loop.OPEN),
        open_decision_cpu_ratio_over_grpcgo_noop=over_go(Subject.DECISION, loop=Loop.OPEN),
        unary_cpu_ratio_lean_over_grpcio=ratio(Subject.LEAN, Subject.GRPCIO, RATE_LIMIT),
        unary_cpu_ratio_lean_over_grpcgo=over_go(Subject.LEAN, RATE_LIMIT),
    )


def _cpu(trials: Round, subject: Subject, kind: str, loop: Loop) -> float:
    return next(trial.cpu_us for trial in trials if (trial.subject, trial.kind, trial.loop) == (subject, kind, loop))


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One server under one load, over all rounds: a line of the table."""

    subject: Subject
    kind: str
    loop: Loop
    cpu_us: Spread
    p50_ms: Spread
    p99_ms: Spread
    requests_per_second: Spread


def lines(rounds: Sequence[Round]) -> list[Line]:
    """A line for each run of a round, in their order."""
    return [
        Line(
            subject=repeated[0].subject,
            kind=repeated[0].kind,
            loop=repeated[0].loop,
            cpu_us=Spread.of(trial.cpu_us for trial in repeated),
            p50_ms=Spread.of(trial.latency.p50_ms for trial in repeated),
            p99_ms=Spread.of(trial.latency.p99_ms for trial in repeated),
            requests_per_second=Spread.of(trial.requests_per_second for trial in repeated),
        )
        for repeated in zip(*rounds, strict=True)
    ]
