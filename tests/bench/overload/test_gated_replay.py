"""The cluster behind admission in virtual time: limits hold, and nobody is lost."""

from __future__ import annotations

import random

import pytest

from bench.overload.gated_replay import GatedReplay, gated_replay
from bench.overload.mix import MIX
from bench.overload.outcome import Ending
from bench.overload.simulated_engine import EngineShape
from bench.overload.stage import POLICY, REPLICAS
from bench.overload.workload import Arrival
from headgate.policy.load import load_policy
from headgate.store import Scope

SECONDS = 60.0
POLICY_OF_THE_BENCH = load_policy(POLICY.read_bytes(), "policy.yaml")


def arrivals(per_second: float, seed: int = 1) -> list[Arrival]:
    draw, now, made = random.Random(seed), 0.0, []
    while (now := now + draw.expovariate(per_second)) < SECONDS:
        tier = draw.choice(list(MIX))
        made.append(
            Arrival(
                number=len(made),
                due_seconds=now,
                tier=tier,
                tenant=draw.choice(list(MIX[tier].tenants)),
                prompt_tokens=draw.randrange(1, 4000),
                answer_tokens=draw.randrange(1, 500),
                max_tokens=MIX[tier].max_tokens,
                patience_seconds=MIX[tier].patience_seconds,
            )
        )
    return made


def test_below_the_capacity_all_who_may_wait_are_served() -> None:
    outcomes = gated_replay(arrivals(2.0), POLICY_OF_THE_BENCH, EngineShape(), REPLICAS, SECONDS)

    assert {outcome.ending for outcome in outcomes} <= {Ending.COMPLETED, Ending.CUT}


@pytest.mark.parametrize("seed", range(3))
def test_far_above_it_no_limit_is_exceeded_and_every_request_has_one_outcome(seed: int) -> None:
    cluster = POLICY_OF_THE_BENCH.clusters["standard"]
    offered = arrivals(40.0, seed)
    most = 0

    def look(visit: object, now: float) -> None:
        nonlocal most
        usage = replay.ledger.usage("standard")
        most = max(most, usage.requests)
        assert usage.tokens <= (cluster.capacity.tokens or 0)

    replay = GatedReplay(POLICY_OF_THE_BENCH, cluster, EngineShape(), REPLICAS, on_end=look)
    outcomes = replay.run(offered, SECONDS)

    assert [outcome.number for outcome in outcomes] == [arrival.number for arrival in offered]
    assert 0 < most <= (cluster.capacity.requests or 0)
    assert all(bool(outcome.reason) == (outcome.ending is Ending.REFUSED) for outcome in outcomes)
    premium = [outcome for outcome in outcomes if outcome.tier == "premium"]
    batch = [outcome for outcome in outcomes if outcome.tier == "batch"]
    assert sum(o.is_served for o in premium) / len(premium) > sum(o.is_served for o in batch) / len(batch)


def test_the_slots_in_use_are_those_of_who_is_still_running() -> None:
    cluster = POLICY_OF_THE_BENCH.clusters["standard"]
    replay = GatedReplay(POLICY_OF_THE_BENCH, cluster, EngineShape(), REPLICAS)

    replay.run(arrivals(10.0), SECONDS)
    replay.advance(10 * SECONDS)

    assert replay.ledger.in_flight(Scope.CLUSTER, "standard") == 0
    assert len(replay.queue) == 0
