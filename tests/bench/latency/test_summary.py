"""From runs to figures."""

from __future__ import annotations

from dataclasses import replace

from bench.latency.summary import Round, lines, summarize
from bench.latency.trial import Loop, Mode, Trial
from bench.percentiles import Percentiles
from bench.spread import Spread

TRIAL = Trial(
    mode=Mode.ENVOY_ALONE,
    loop=Loop.OPEN,
    requests=500,
    requests_per_second=100.0,
    latency=Percentiles(p50_ms=1.0, p90_ms=2.0, p99_ms=4.0),
    late_p99_ms=0.1,
    sidecar_cpu_us=0.0,
    envoy_cpu_us=50.0,
    client_cpu_us=20.0,
    other_cpu_cores=0.0,
)


def a_round(p50_ms: float, p99_ms: float, rps: float, cpu_us: float) -> Round:
    latency = Percentiles(p50_ms=p50_ms, p90_ms=p50_ms, p99_ms=p99_ms)
    headgate = replace(TRIAL, mode=Mode.HEADGATE, envoy_cpu_us=150.0)
    return Round(
        open_alone=TRIAL,
        open_headgate=replace(headgate, latency=latency, sidecar_cpu_us=2 * cpu_us),
        closed_alone=replace(TRIAL, loop=Loop.CLOSED, requests_per_second=8000.0),
        closed_headgate=replace(headgate, loop=Loop.CLOSED, requests_per_second=rps, sidecar_cpu_us=cpu_us),
    )


ROUNDS = [a_round(2.0, 9.0, 2000.0, 500.0), a_round(3.0, 7.0, 4000.0, 400.0), a_round(2.5, 5.0, 1000.0, 900.0)]


def test_added_latency_is_the_difference_within_a_round_of_the_open_loop() -> None:
    summary = summarize(ROUNDS)
    assert summary.added_p50_ms == Spread(median=1.5, low=1.0, high=2.0)
    assert summary.added_p99_ms == Spread(median=3.0, low=1.0, high=5.0)


def test_cpu_per_request_is_that_of_the_closed_loop_and_the_open_one_stands_beside_it() -> None:
    summary = summarize(ROUNDS)
    assert summary.cpu_us_per_request == Spread(median=500.0, low=400.0, high=900.0)
    assert summary.open_cpu_us_per_request == Spread(median=1000.0, low=800.0, high=1800.0)
    assert summary.added_envoy_cpu_us_per_request.median == 100.0


def test_the_throughput_ratio_is_taken_within_a_round_of_the_closed_loop() -> None:
    assert summarize(ROUNDS).rps_ratio_to_envoy_alone == Spread(median=0.25, low=0.125, high=0.5)


def test_there_is_one_line_for_each_envoy_and_loop_over_all_rounds() -> None:
    seen = [(line.mode, line.loop, line.p50_ms.median) for line in lines(ROUNDS)]
    assert seen == [
        (Mode.ENVOY_ALONE, Loop.OPEN, 1.0),
        (Mode.HEADGATE, Loop.OPEN, 2.5),
        (Mode.ENVOY_ALONE, Loop.CLOSED, 1.0),
        (Mode.HEADGATE, Loop.CLOSED, 1.0),
    ]
