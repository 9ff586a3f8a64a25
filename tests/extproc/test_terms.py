"""What a waiting request is held to: the limits in force, on its old route."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace as with_fields

from extproc.terms import TermsInForce
from headgate.policy.model import Capacity, Policy, TenantLimits
from headgate.store import LeaseRequest

BEFORE = LeaseRequest(
    tenant="acme",
    tier="premium",
    cluster="best",
    tokens=300,
    prompt_tokens=100,
    priority=7,
    waiting_since=12.5,
    tenant_limit=1,
    tier_limit=2,
    cluster_limit=3,
    cluster_token_limit=400,
    reserved={"gone": 0.5},
)


def in_force(policy: Policy, learnt: int | None = None) -> TermsInForce:
    return TermsInForce(lambda: policy, lambda cluster: learnt if cluster.capacity.auto else cluster.capacity.requests)


def test_limits_are_those_of_the_policy_in_force(revise: Callable[..., Policy]) -> None:
    policy = revise(
        tiers={"premium": {"tier_concurrency": 30, "tenant_concurrency": 5}, "interactive": {"reserved": 0.25}},
        clusters={"best": {"capacity": Capacity(requests=20, tokens=9000)}},
    )

    now = in_force(policy).as_of_now(BEFORE)

    assert (now.tenant_limit, now.tier_limit, now.cluster_limit, now.cluster_token_limit) == (5, 30, 20, 9000)
    assert now.reserved == {"interactive": 0.25}


def test_a_tenants_own_limit_goes_before_its_tiers(revise: Callable[..., Policy]) -> None:
    policy = revise(
        tiers={"premium": {"tenant_concurrency": 5}}, tenants={"acme": {"limits": TenantLimits(concurrency=0)}}
    )

    assert in_force(policy).as_of_now(BEFORE).tenant_limit == 0


def test_a_learnt_limit_is_that_of_now(revise: Callable[..., Policy]) -> None:
    policy = revise(clusters={"best": {"capacity": Capacity(auto=True)}})

    assert in_force(policy, learnt=44).as_of_now(BEFORE).cluster_limit == 44


def test_its_place_its_cost_and_its_route_stay_what_they_were(policy: Policy) -> None:
    now = in_force(policy).as_of_now(BEFORE)

    kept = ("tenant", "tier", "cluster", "tokens", "prompt_tokens", "priority", "waiting_since")
    assert [getattr(now, name) for name in kept] == [getattr(BEFORE, name) for name in kept]


def test_one_whose_tier_or_cluster_is_gone_keeps_what_it_came_with(policy: Policy) -> None:
    without_tier = with_fields(policy, tiers={k: v for k, v in policy.tiers.items() if k != "premium"})
    without_cluster = with_fields(policy, clusters={k: v for k, v in policy.clusters.items() if k != "best"})

    assert in_force(without_tier).as_of_now(BEFORE) is BEFORE
    assert in_force(without_cluster).as_of_now(BEFORE) is BEFORE
