"""Shares between tenants over minutes of contention: the real queue and ledger, simulated engines, virtual time."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace

import pytest

from bench.overload.fairness import jain
from bench.overload.gated_replay import GatedReplay
from bench.overload.simulated_engine import EngineShape
from bench.overload.workload import Arrival
from headgate.policy.model import Capacity, Policy, Queue, Rung

SECONDS = 180.0
WARM_UP_SECONDS = 40.0
LOADS = range(1, 11)
CAPACITY = Capacity(requests=96)
# The least any of them asks for is well above a tenth of what the cluster gives.
PER_SECOND_OF_THE_SMALLEST = 2.5


def arrivals(seed: int) -> list[Arrival]:
    """Ten tenants who ask for one to ten times as much, in Poisson streams of equal sizes."""
    draw = random.Random(seed)
    made: list[tuple[float, str]] = []
    for load in LOADS:
        now = 0.0
        while (now := now + draw.expovariate(load * PER_SECOND_OF_THE_SMALLEST)) < SECONDS:
            made.append((now, f"tenant-{load}"))
    return [
        Arrival(
            number=number,
            due_seconds=moment,
            tier="premium",
            tenant=tenant,
            prompt_tokens=500,
            answer_tokens=200,
            max_tokens=400,
            patience_seconds=600.0,
        )
        for number, (moment, tenant) in enumerate(sorted(made))
    ]


def served(policy: Policy, max_wait_seconds: float) -> Counter[str]:
    limits = Queue(max_wait_seconds=max_wait_seconds, max_depth=100_000)
    tier = replace(policy.tiers["premium"], queue=limits, on_overload=(Rung.QUEUE, Rung.REJECT))
    cluster = replace(policy.clusters["best"], capacity=CAPACITY)
    changed = replace(policy, tiers={"premium": tier}, clusters={"best": cluster})
    outcomes = GatedReplay(changed, cluster, EngineShape(), 2).run(arrivals(seed=1), SECONDS)
    return Counter(o.tenant for o in outcomes if o.is_served and (o.first_token_seconds or 0.0) > WARM_UP_SECONDS)


@pytest.mark.parametrize("max_wait_seconds", [10.0, 40.0], ids=["a short wait", "a wait beyond patience"])
def test_ten_tenants_that_offer_one_to_ten_times_as_much_get_equal_shares_within_five_percent(
    policy: Policy, max_wait_seconds: float
) -> None:
    shares = served(policy, max_wait_seconds)

    mean = shares.total() / len(LOADS)
    assert set(shares) == {f"tenant-{load}" for load in LOADS}
    assert all(abs(share - mean) <= 0.05 * mean for share in shares.values())
    assert jain(list(shares.values())) > 0.999
