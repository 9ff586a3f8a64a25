"""Many runs -> the few figures that say what Headgate adds.

Each figure compares two runs of the same round, which lie seconds apart; the rounds give its median and its spread.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from bench.latency.trial import Loop, Mode, Trial
from bench.spread import Spread


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """The four runs of one round."""

    open_alone: Trial
    open_headgate: Trial
    closed_alone: Trial
    closed_headgate: Trial

    @property
    def trials(self) -> tuple[Trial, ...]:
        """All four."""
        return (self.open_alone, self.open_headgate, self.closed_alone, self.closed_headgate)


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """What Headgate adds; the required keys of `latency.json` are these fields' names.

    Attributes:
        added_p50_ms: open loop: latency with Headgate less that of Envoy alone; `added_p99_ms` likewise.
        cpu_us_per_request: of the sidecar, closed loop; `open_cpu_us_per_request` at the open loop's rate.
        rps_ratio_to_envoy_alone: closed loop: requests per second with Headgate over those of Envoy alone.
        added_envoy_cpu_us_per_request: closed loop: what Envoy itself works more.
    """

    added_p50_ms: Spread
    added_p99_ms: Spread
    cpu_us_per_request: Spread
    open_cpu_us_per_request: Spread
    rps_ratio_to_envoy_alone: Spread
    added_envoy_cpu_us_per_request: Spread


def summarize(rounds: Sequence[Round]) -> Summary:
    """The figures of at least one round."""
    return Summary(
        added_p50_ms=Spread.of(r.open_headgate.latency.p50_ms - r.open_alone.latency.p50_ms for r in rounds),
        added_p99_ms=Spread.of(r.open_headgate.latency.p99_ms - r.open_alone.latency.p99_ms for r in rounds),
        cpu_us_per_request=Spread.of(r.closed_headgate.sidecar_cpu_us for r in rounds),
        open_cpu_us_per_request=Spread.of(r.open_headgate.sidecar_cpu_us for r in rounds),
        rps_ratio_to_envoy_alone=Spread.of(
            r.closed_headgate.requests_per_second / r.closed_alone.requests_per_second for r in rounds
        ),
        added_envoy_cpu_us_per_request=Spread.of(
            r.closed_headgate.envoy_cpu_us - r.closed_alone.envoy_cpu_us for r in rounds
        ),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One Envoy under one load, over all rounds: a line of the table."""

    mode: Mode
    loop: Loop
    p50_ms: Spread
    p90_ms: Spread
    p99_ms: Spread
    requests_per_second: Spread
    sidecar_cpu_us: Spread
    envoy_cpu_us: Spread
    client_cpu_us: Spread
    late_p99_ms: Spread
    other_cpu_cores: Spread


def lines(rounds: Sequence[Round]) -> list[Line]:
    """The four lines, in the order of a round's runs."""
    return [_line(trials) for trials in zip(*(r.trials for r in rounds), strict=True)]


def _line(trials: Iterable[Trial]) -> Line:
    repeated = list(trials)
    return Line(
        mode=repeated[0].mode,
        loop=repeated[0].loop,
        p50_ms=Spread.of(trial.latency.p50_ms for trial in repeated),
        p90_ms=Spread.of(trial.latency.p90_ms for trial in repeated),
        p99_ms=Spread.of(trial.latency.p99_ms for trial in repeated),
        requests_per_second=Spread.of(trial.requests_per_second for trial in repeated),
        sidecar_cpu_us=Spread.of(trial.sidecar_cpu_us for trial in repeated),
        envoy_cpu_us=Spread.of(trial.envoy_cpu_us for trial in repeated),
        client_cpu_us=Spread.of(trial.client_cpu_us for trial in repeated),
        late_p99_ms=Spread.of(trial.late_p99_ms for trial in repeated),
        other_cpu_cores=Spread.of(trial.other_cpu_cores for trial in repeated),
    )
