"""More than two thousand requests at once on one sidecar, and everything goes wrong that can; afterwards all is free.

The limits are held against what the upstream counts, not against what Headgate says.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable

import pytest

from tests.chaos.crowd import Leaving, Verdict, Visit, all_over
from tests.chaos.script import Act
from tests.chaos.stage import Shape, Sidecar, Stage, script, tenants, until
from tests.chaos.upstream import Record

STREAMS = 3000
CALM_STREAMS = 400
"""The first take all slots and keep them while the gate is closed. Were some to end, the sidecar would learn from them
how slowly the line moves, and refuse whoever would wait too long."""
LATE_STREAMS = 100
DECISIONS = "headgate_decisions_total"
TIERS = {
    **{f"gold{n}": "gold" for n in range(3)},
    **{f"silver{n}": "silver" for n in range(4)},
    **{f"bronze{n}": "bronze" for n in range(3)},
    "leaver": "doomed",
}
CLUSTERS = {"big": 90, "small": 40}
TIER_LIMITS = {"gold": 80, "silver": 50, "bronze": 20, "doomed": 30}
TENANT_LIMITS = {"gold": 40, "silver": 20, "bronze": 8, "doomed": 30}
POLICY = """
apiVersion: headgate/v1
identity: [{api_key: {header: authorization}}]
tenants:
%s
tiers:
  gold: {priority: 0, reserved: 0.2, concurrency: {tier: 80, tenant: 40}, queue: {max_wait: 600s, max_depth: 2000},
         on_overload: [queue, degrade, reject]}
  silver: {priority: 1, concurrency: {tier: 50, tenant: 20}, queue: {max_wait: 600s, max_depth: 2000},
           on_overload: [queue, reject]}
  bronze: {priority: 4, concurrency: {tier: 20, tenant: 8}, on_overload: [degrade, reject]}
%s
models: {assistant: {routes: [{cluster: big}], degrade: [small]}}
clusters:
  big: {protocol: openai, model: m, endpoints: ["127.0.0.1:BIG"], capacity: {requests: 90, tokens: 100000}}
  small: {protocol: openai, model: s, endpoints: ["127.0.0.1:SMALL"], capacity: {requests: 40}}
"""
DOOMED = """  doomed: {priority: 2, concurrency: {tier: 30, tenant: 30}, queue: {max_wait: 600s, max_depth: 2000},
           on_overload: [queue, reject]}"""
BEFORE = POLICY % (tenants(**TIERS), DOOMED)
AFTER = POLICY % (tenants(**{**TIERS, "leaver": "silver"}), "")
RETRY_ON = "connect-failure,refused-stream,reset,5xx"
ACTS = [
    *[(Act.ANSWER,)] * 34,
    *[(Act.CUT,), (Act.FALL_SILENT,), (Act.FAIL, Act.ANSWER), (Act.RESET, Act.FAIL, Act.ANSWER), (Act.FAIL,)],
    (Act.RESET,),
]
LEAVING = [*[Leaving.NEVER] * 10, *Leaving]


def _visit(number: int, tenant: str, chance: random.Random, tier: str = "") -> Visit:
    is_calm = number < CALM_STREAMS
    told = script(
        number, tenant, tier or TIERS[tenant], acts=(Act.ANSWER,) if is_calm else chance.choice(ACTS),
        chunks=chance.randint(2, 6), pace_seconds=chance.uniform(0.001, 0.02),
    )  # fmt: skip
    return Visit(told, tenant, Leaving.NEVER if is_calm else chance.choice(LEAVING))


@pytest.mark.parametrize("seed", [4])
async def test_whatever_happens_no_limit_is_exceeded_and_all_is_given_back(
    seed: int, new_stage: Callable[[Shape], Stage]
) -> None:
    stage = new_stage(Shape(BEFORE, retry_on=RETRY_ON))
    cast = stage.start()
    sidecar, port = cast.sidecar, cast.port
    chance = random.Random(seed)
    tenants_by_chance = chance.choices(
        list(TIERS), [1 if tier == "bronze" else 4 for tier in TIERS.values()], k=STREAMS
    )
    visits = [_visit(number, tenant, chance) for number, tenant in enumerate(tenants_by_chance)]

    await stage.record("close")
    await stage.send(port, visits)
    await until(lambda: _all_stand(sidecar, visits), "everybody runs, waits or is gone")
    assert await stage.running("tier:doomed")
    stage.write_policy(AFTER)
    await until(lambda: _is_gone(sidecar, "doomed"), "the tier is gone")
    late = [_visit(STREAMS + number, "leaver", chance, "silver") for number in range(LATE_STREAMS)]
    await stage.send(port, late)
    visits += late
    await until(lambda: _all_stand(sidecar, visits), "those who came late stand in line")
    assert all(visit.has_left or not visit.over.done() for visit in late)
    assert await sidecar.total("headgate_open_streams") >= 2000
    for visit in visits:
        if visit.leaving is Leaving.WHEN_TOLD:
            visit.leave()
    await stage.record("open")
    await all_over(visits)
    await until(sidecar.holds_nothing, "all is given back")

    record = await stage.record()
    assert not record.running
    _check_limits(record)
    await _check_answers(sidecar, visits, set(record.attempts))


async def _all_stand(sidecar: Sidecar, visits: list[Visit]) -> bool:
    return await sidecar.total("headgate_open_streams") == sum(not visit.over.done() for visit in visits)


async def _is_gone(sidecar: Sidecar, tier: str) -> bool:
    return not any(labels["name"] == tier for labels, _ in await sidecar.samples("headgate_leases"))


def _check_limits(record: Record) -> None:
    most = record.most
    limits = {f"cluster:{name}": limit for name, limit in CLUSTERS.items()}
    limits |= {f"tier:{name}": limit for name, limit in TIER_LIMITS.items()}
    limits |= {f"tenant:{name}": TENANT_LIMITS[tier] for name, tier in TIERS.items()}
    assert {name: most[name] for name, limit in limits.items() if most.get(name, 0) > limit} == {}
    assert most["cluster:big"] == CLUSTERS["big"]
    # All attempts of a request run one after the other, under one lease.
    assert {most[f"request:{request}"] for request in record.attempts} == {1}
    assert max(record.attempts.values()) == 3


async def _check_answers(sidecar: Sidecar, visits: list[Visit], seen_by_upstream: set[str]) -> None:
    """Everybody has an answer or has left, and each was either refused or sent on, as the sidecar says too."""
    stayed = [visit for visit in visits if not visit.has_left]
    assert [visit for visit in stayed if not visit.status or visit.verdict is None] == []
    rejected = {visit.script.request for visit in stayed if visit.verdict is Verdict.REJECT}
    admitted = {visit.script.request for visit in stayed} - rejected
    assert admitted <= seen_by_upstream
    assert not rejected & seen_by_upstream
    assert all(visit.is_complete for visit in stayed if visit.script.request in rejected)
    served = [visit for visit in stayed if visit.script.request in admitted and visit.script.acts[-1] is Act.ANSWER]
    unserved = [visit for visit in served if not visit.is_served]
    assert [(visit.script.acts, visit.status, visit.verdict, visit.received[-200:]) for visit in unserved] == []

    decisions: Counter[str] = Counter()
    for labels, count in await sidecar.samples(DECISIONS):
        decisions["rejected" if labels["verdict"] == "REJECT" else "admitted"] += count
    left = len(visits) - len(stayed)
    assert len(rejected) <= decisions["rejected"] <= len(rejected) + left
    assert len(seen_by_upstream) <= decisions["admitted"] <= len(admitted) + left
