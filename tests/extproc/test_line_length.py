"""How long lines get in an overload: who is let in is served, and no slot idles for it.

The real queue and ledger, simulated engines, virtual time.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable

import pytest

from bench.overload.gated_replay import GatedReplay, Visit
from bench.overload.mix import MIX
from bench.overload.outcome import Outcome
from bench.overload.simulated_engine import EngineShape
from bench.overload.stage import POLICY, REPLICAS
from bench.overload.workload import Arrival
from headgate.policy.load import load_policy
from headgate.store import Scope

POLICY_OF_THE_BENCH = load_policy(POLICY.read_bytes(), "policy.yaml")
CLUSTER = POLICY_OF_THE_BENCH.clusters["standard"]
# Requests a second of these sizes that the two engines serve.
CAPACITY = 15.0
ON_ARRIVAL = ("queue_too_long", "queue_full", "cluster_concurrency", "cluster_tokens")


def arrival(moment: float, tier: str, draw: random.Random) -> Arrival:
    return Arrival(
        number=0,
        due_seconds=moment,
        tier=tier,
        tenant=draw.choice(list(MIX[tier].tenants)),
        prompt_tokens=draw.randrange(100, 1500),
        answer_tokens=draw.randrange(50, 350),
        max_tokens=512,
        patience_seconds=600.0,
    )


def stream(
    per_second: float, until: float, shares: dict[str, float], *, start: float = 0.0, seed: int = 1
) -> list[Arrival]:
    draw, moment, made = random.Random(seed), start, []
    while (moment := moment + draw.expovariate(per_second)) < until:
        [tier] = draw.choices(list(shares), weights=list(shares.values()))
        made.append(arrival(moment, tier, draw))
    return made


def replayed(arrivals: Iterable[Arrival], seconds: float) -> list[Outcome]:
    in_order = sorted(arrivals, key=lambda each: each.due_seconds)
    return GatedReplay(POLICY_OF_THE_BENCH, CLUSTER, EngineShape(), REPLICAS).run(in_order, seconds)


def reasons(outcomes: Iterable[Outcome]) -> Counter[str]:
    return Counter(outcome.reason for outcome in outcomes)


@pytest.mark.parametrize("load", [1.3, 2.0, 4.0])
def test_hardly_anybody_is_refused_after_a_wait_however_great_the_overload(load: float) -> None:
    shares = {tier: part.share for tier, part in MIX.items()}
    outcomes = replayed(stream(load * CAPACITY, 200.0, shares), 260.0)

    refused = reasons(outcome for outcome in outcomes if outcome.reason)

    assert refused.total() > 300
    assert sum(refused[reason] for reason in refused if reason not in ON_ARRIVAL) <= 0.015 * refused.total()


@pytest.mark.parametrize("seconds", [0.0, 1.0, 5.0])
def test_a_burst_on_an_idle_cluster_that_can_be_served_in_time_is_queued_whole(seconds: float) -> None:
    draw = random.Random(2)
    burst = [arrival(1.0 + seconds * draw.random(), "batch", draw) for _ in range(200)]

    assert reasons(replayed(burst, 120.0)) == {"": 200}


def test_a_burst_soon_after_an_overload_is_queued_by_a_tier_that_got_nothing_then() -> None:
    draw = random.Random(3)
    overload = stream(3 * CAPACITY, 60.0, {"interactive": 0.5, "async": 0.3, "batch": 0.2})
    burst = [arrival(110.0 + draw.random(), "batch", draw) for _ in range(200)]

    outcomes = replayed([*overload, *burst], 200.0)

    assert reasons(outcome for outcome in outcomes if outcome.due_seconds > 109.0) == {"": 200}


def test_slots_that_better_tiers_leave_are_all_in_use_at_once_by_one_that_got_nothing_before() -> None:
    better = stream(2.5 * CAPACITY, 60.0, {"interactive": 0.6, "async": 0.4}, seed=4)
    batch = stream(2.5 * CAPACITY, 90.0, {"batch": 1.0}, seed=5)
    free: list[tuple[float, int]] = []

    def look(visit: Visit, now: float) -> None:
        free.append((now, replay.ledger.in_flight(Scope.CLUSTER, CLUSTER.name)))

    replay = GatedReplay(POLICY_OF_THE_BENCH, CLUSTER, EngineShape(), REPLICAS, on_end=look)
    replay.run(sorted([*better, *batch], key=lambda each: each.due_seconds), 90.0)

    def in_use(start: float, end: float) -> float:
        seen = [running for moment, running in free if start <= moment < end]
        return sum(seen) / len(seen)

    assert in_use(64.0, 90.0) >= 0.99 * in_use(40.0, 60.0)
