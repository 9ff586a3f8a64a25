"""The cluster in virtual time, and what 1x is."""

from __future__ import annotations

from bench.overload.__main__ import read_slos
from bench.overload.capacity import find_capacity
from bench.overload.outcome import Ending
from bench.overload.plan import Plan
from bench.overload.replay import replay
from bench.overload.score import throughput
from bench.overload.simulated_engine import EngineShape
from bench.overload.stage import POLICY
from bench.overload.trace import TraceRequest
from bench.overload.workload import build

SHAPE = EngineShape(slots=8)
SECONDS = 60.0
TRACE = [TraceRequest(float(number), 400, 60) for number in range(12_001)]


def test_an_idle_cluster_completes_what_has_time_to_end() -> None:
    outcomes = replay(build(TRACE, 1.0, SECONDS, seed=1), SHAPE, 2, SECONDS)
    assert {outcome.ending for outcome in outcomes if outcome.due_seconds < 50} == {Ending.COMPLETED}
    assert all(outcome.answer_tokens == 60 for outcome in outcomes if outcome.ending is Ending.COMPLETED)


def test_under_overload_the_impatient_give_up_before_the_patient() -> None:
    outcomes = replay(build(TRACE, 60.0, SECONDS, seed=1), SHAPE, 2, SECONDS)
    gave_up = {outcome.tier for outcome in outcomes if outcome.ending is Ending.GAVE_UP}
    assert "premium" in gave_up
    assert "batch" not in gave_up


def test_the_same_load_gives_the_same_outcomes() -> None:
    arrivals = build(TRACE, 20.0, SECONDS, seed=1)
    assert replay(arrivals, SHAPE, 2, SECONDS) == replay(arrivals, SHAPE, 2, SECONDS)


def test_one_x_is_near_what_the_engines_can_do_and_not_above() -> None:
    plan = Plan(systems=(), loads=(), seconds=SECONDS, time_factor=1.0, seed=1, policy=POLICY, shape=SHAPE)
    capacity = find_capacity(TRACE, plan, read_slos(POLICY))
    flood = build(TRACE, 4 * capacity.rate_per_second, plan.total_seconds, seed=1)
    most = throughput(replay(flood, SHAPE, 2, plan.total_seconds), plan.window)
    assert 0.6 * most < capacity.goodput_tokens_per_s <= most * 1.02
