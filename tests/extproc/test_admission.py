"""The question put to the store, and every ladder a tier can have for the answer no."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from msgspec.structs import replace

from extproc.admission import (
    Ladder,
    can_ever_fit,
    cheaper_places,
    idle_room_tokens,
    passing_question,
    question,
    tenant_concurrency,
)
from extproc.identity import Identity
from extproc.inspection.request import InferenceRequest
from extproc.routing import Destination
from headgate.policy.model import Capacity, Policy, Protocol, Queue, Rung, TenantLimits
from headgate.store import Lease, LeaseRequest, Refused, Scope
from headgate.store.ledger import Ledger

QUEUE, DEGRADE, REJECT = Rung.QUEUE, Rung.DEGRADE, Rung.REJECT
TWO_SECONDS = Queue(max_wait_seconds=2.0, max_depth=2)
CLUSTER_SCOPES = [Scope.CLUSTER, Scope.CLUSTER_TOKENS]
OWN_SCOPES = [Scope.TENANT, Scope.TIER]


def as_tenant(policy: Policy, name: str) -> Identity:
    tenant = policy.tenants[name]
    return Identity(tenant, policy.tiers[tenant.tier])


def place(policy: Policy, cluster: str, charged_tokens: int = 500) -> Destination:
    known = policy.clusters[cluster]
    return Destination(
        cluster=known,
        frontend=known.frontends[Protocol.OPENAI],
        max_output_tokens=400,
        charged_tokens=charged_tokens,
        prompt_tokens=100,
        is_degraded=False,
        reason="",
    )


# the question


def test_the_question_names_every_limit_in_one_step(revise: Callable[..., Policy]) -> None:
    policy = revise(
        tiers={"premium": {"reserved": 0.25, "tier_concurrency": 64, "tenant_concurrency": 16}, "interactive": {}},
        tenants={"acme": {"limits": TenantLimits(concurrency=40)}},
    )

    assert question(policy, as_tenant(policy, "acme"), place(policy, "best"), 2) == LeaseRequest(
        tenant="acme",
        tier="premium",
        cluster="best",
        tokens=500,
        tenant_limit=40,
        tier_limit=64,
        cluster_limit=2,
        cluster_token_limit=50_000,
        reserved={"premium": 0.25},
        prompt_tokens=100,
    )


@pytest.mark.parametrize(
    ("tenant", "ladder", "max_backlog_seconds"),
    [("acme", (QUEUE, REJECT), None), ("globex", (QUEUE, REJECT), 0.25), ("globex", (DEGRADE, QUEUE, REJECT), None)],
    ids=["the tightest promise", "a lesser promise", "no wish to wait"],
)
def test_only_tiers_that_promise_less_and_would_wait_are_held_back_by_prompts(
    revise: Callable[..., Policy], tenant: str, ladder: tuple[Rung, ...], max_backlog_seconds: float | None
) -> None:
    policy = revise(
        tiers={
            "premium": {"ttft_slo_seconds": 2.0, "on_overload": ladder},
            "interactive": {"ttft_slo_seconds": 5.0, "on_overload": ladder},
        },
        clusters={"best": {"capacity": Capacity(prompt_tokens_per_minute=60_000)}},
    )

    asked = question(policy, as_tenant(policy, tenant), place(policy, "best"), None)

    assert (asked.prompt_tokens, asked.prompt_tokens_per_second) == (100, 1000.0)
    assert asked.max_backlog_seconds == max_backlog_seconds


def test_where_no_first_token_is_promised_no_tier_is_held_back(revise: Callable[..., Policy]) -> None:
    policy = revise(clusters={"best": {"capacity": Capacity(prompt_tokens_per_minute=60_000)}})

    assert question(policy, as_tenant(policy, "globex"), place(policy, "best"), None).max_backlog_seconds is None


@pytest.mark.parametrize(
    ("own", "of_its_tier", "limit"), [(None, None, None), (None, 3, 3), (7, 3, 7), (0, 3, 0), (7, None, 7)]
)
def test_the_tenants_own_limit_goes_before_what_its_tier_gives_each(
    revise: Callable[..., Policy], own: int | None, of_its_tier: int | None, limit: int | None
) -> None:
    policy = revise(
        tiers={"premium": {"tenant_concurrency": of_its_tier}},
        tenants={"acme": {"limits": TenantLimits(concurrency=own)}},
    )

    assert tenant_concurrency(as_tenant(policy, "acme")) == limit
    assert question(policy, as_tenant(policy, "acme"), place(policy, "best"), 2).tenant_limit == limit


def test_a_request_that_runs_no_model_asks_for_its_tenant_only(policy: Policy) -> None:
    assert passing_question(as_tenant(policy, "hobby")) == LeaseRequest(
        tenant="hobby", tier="best_effort", tenant_limit=1
    )


# what can never be


@pytest.mark.parametrize(("charged_tokens", "fits"), [(1, True), (50_000, True), (50_001, False)])
def test_a_request_larger_than_the_idle_cluster_never_fits(policy: Policy, charged_tokens: int, fits: bool) -> None:
    assert can_ever_fit(policy, as_tenant(policy, "acme"), place(policy, "best", charged_tokens)) is fits


def test_a_cluster_without_a_token_limit_fits_all(policy: Policy) -> None:
    assert can_ever_fit(policy, as_tenant(policy, "acme"), place(policy, "standard", 10**9))


def test_what_other_tiers_have_reserved_is_no_room_for_a_tier(revise: Callable[..., Policy]) -> None:
    policy = revise(tiers={"premium": {"reserved": 0.25}, "interactive": {"reserved": 0.5}})
    best = place(policy, "best")

    assert idle_room_tokens(policy, as_tenant(policy, "acme"), best.cluster) == 25_000
    assert idle_room_tokens(policy, as_tenant(policy, "globex"), best.cluster) == 37_500
    assert idle_room_tokens(policy, as_tenant(policy, "hobby"), best.cluster) == 12_500
    assert not can_ever_fit(policy, as_tenant(policy, "hobby"), place(policy, "best", 12_501))


def test_the_idle_room_is_what_the_store_would_grant_whatever_floating_point_makes_of_a_share(
    revise: Callable[..., Policy],
) -> None:
    # 0.29 * 100 is 28.999...
    policy = revise(tiers={"premium": {"reserved": 0.29}}, clusters={"best": {"capacity": Capacity(tokens=100)}})
    best = place(policy, "best")
    globex = as_tenant(policy, "globex")

    assert idle_room_tokens(policy, globex, best.cluster) == 71
    ledger = Ledger()
    asked = question(policy, globex, best, best.cluster.capacity.requests)
    assert isinstance(ledger.acquire(replace(asked, tokens=72), 0.0), Refused)
    assert isinstance(ledger.acquire(replace(asked, tokens=71), 0.0), Lease)


def test_a_cluster_of_zero_tokens_fits_nothing(revise: Callable[..., Policy]) -> None:
    policy = revise(clusters={"best": {"capacity": Capacity(tokens=0)}})

    assert not can_ever_fit(policy, as_tenant(policy, "acme"), place(policy, "best", 1))


# the ladder


def steps(policy: Policy, rungs: list[Rung], refusals: list[Scope], queue: Queue | None = TWO_SECONDS) -> list[str]:
    """What a request tries after each refusal; two cheaper places are there to be tried."""
    ladder = Ladder(list(rungs), queue, place(policy, "best"), [place(policy, "fast"), place(policy, "tiny")])
    return [_told(ladder.next(scope)) for scope in refusals]


def _told(step: Queue | Destination | None) -> str:
    match step:
        case None:
            return "reject"
        case Queue():
            return "queue"
        case Destination():
            return step.cluster.name


@pytest.mark.parametrize("scope", CLUSTER_SCOPES)
@pytest.mark.parametrize(
    ("rungs", "tried"),
    [
        ([REJECT], ["reject"]),
        ([QUEUE, REJECT], ["queue", "reject"]),
        ([DEGRADE, REJECT], ["fast", "tiny", "reject"]),
        ([QUEUE, DEGRADE, REJECT], ["queue", "fast", "tiny", "reject"]),
        ([DEGRADE, QUEUE, REJECT], ["fast", "tiny", "queue", "reject"]),
        ([], ["reject"]),
        ([QUEUE], ["queue", "reject"]),
        ([DEGRADE], ["fast", "tiny", "reject"]),
        ([REJECT, QUEUE, DEGRADE], ["reject"]),
    ],
)
def test_a_full_cluster_is_answered_in_the_order_the_tier_names(
    policy: Policy, rungs: list[Rung], tried: list[str], scope: Scope
) -> None:
    assert steps(policy, rungs, [scope] * (len(tried) + 1)) == [*tried, "reject"]


@pytest.mark.parametrize("scope", OWN_SCOPES)
@pytest.mark.parametrize(
    ("rungs", "tried"),
    [
        ([DEGRADE, REJECT], ["reject"]),
        ([QUEUE, DEGRADE, REJECT], ["queue", "reject"]),
        ([DEGRADE, QUEUE, REJECT], ["queue", "reject"]),
    ],
)
def test_no_cheaper_cluster_relieves_a_tenant_or_tier_at_its_own_limit(
    policy: Policy, rungs: list[Rung], tried: list[str], scope: Scope
) -> None:
    assert steps(policy, rungs, [scope] * (len(tried) + 1)) == [*tried, "reject"]


def test_a_limit_of_its_own_met_on_the_way_down_ends_the_degrading(policy: Policy) -> None:
    assert steps(policy, [DEGRADE, REJECT], [Scope.CLUSTER, Scope.TENANT, Scope.CLUSTER]) == [
        "fast",
        "reject",
        "reject",
    ]


def test_a_tier_without_a_queue_skips_that_step(policy: Policy) -> None:
    assert steps(policy, [QUEUE, DEGRADE, REJECT], [Scope.CLUSTER], queue=None) == ["fast"]


def test_a_model_without_cheaper_places_skips_that_step(policy: Policy) -> None:
    ladder = Ladder([DEGRADE, QUEUE, REJECT], TWO_SECONDS, place(policy, "best"), [])

    assert ladder.next(Scope.CLUSTER) == TWO_SECONDS


def test_a_ladder_leaves_the_tiers_own_order_alone(policy: Policy) -> None:
    tier: Any = policy.tiers["premium"]
    ladder = Ladder(list(tier.on_overload), tier.queue, place(policy, "best"), [])

    ladder.next(Scope.CLUSTER)

    assert tier.on_overload == (QUEUE, DEGRADE, REJECT)


# a tier that is being degraded


def steps_while_degraded(policy: Policy, signals: Any, rungs: list[Rung], refusals: list[Scope]) -> list[str]:
    ladder = Ladder(list(rungs), TWO_SECONDS, place(policy, "best"), [place(policy, "fast"), place(policy, "tiny")])
    start = ladder.start_degraded(signals)
    return [start.cluster.name, *(_told(ladder.next(scope)) for scope in refusals)]


@pytest.mark.parametrize("scope", CLUSTER_SCOPES)
@pytest.mark.parametrize(
    ("rungs", "tried"),
    [
        ([DEGRADE, REJECT], ["fast", "tiny", "best", "reject"]),
        ([DEGRADE, QUEUE, REJECT], ["fast", "tiny", "best", "queue", "reject"]),
        ([QUEUE, DEGRADE, REJECT], ["fast", "tiny", "best", "queue", "reject"]),
        ([QUEUE, REJECT], ["best", "queue", "reject"]),
        ([REJECT], ["best", "reject"]),
    ],
)
def test_a_tier_that_is_being_degraded_tries_the_cheaper_places_first_and_leaves_no_room_unused(
    policy: Policy, signals: Any, rungs: list[Rung], tried: list[str], scope: Scope
) -> None:
    assert steps_while_degraded(policy, signals, rungs, [scope] * (len(tried) - 1)) == tried


def test_a_tier_that_is_being_degraded_waits_when_its_tenant_is_at_its_own_limit(policy: Policy, signals: Any) -> None:
    assert steps_while_degraded(policy, signals, [QUEUE, DEGRADE, REJECT], [Scope.TENANT]) == ["fast", "queue"]


def test_the_reason_of_a_request_degraded_for_those_before_it_says_so(policy: Policy, signals: Any) -> None:
    ladder = Ladder([DEGRADE, REJECT], None, place(policy, "best"), [place(policy, "fast")])

    assert ladder.start_degraded(signals).reason == "cluster_recovering"


def test_the_reason_of_a_request_whose_first_choice_takes_none_says_that(policy: Policy, signals: Any) -> None:
    signals.unavailable.add("best")
    ladder = Ladder([DEGRADE, REJECT], None, place(policy, "best"), [place(policy, "fast")])

    start = ladder.start_degraded(signals)

    assert (start.cluster.name, start.reason) == ("fast", "cluster_unavailable")


def test_a_tier_without_a_cheaper_place_starts_at_its_first_choice(policy: Policy, signals: Any) -> None:
    signals.unavailable.add("best")
    ladder = Ladder([DEGRADE, REJECT], None, place(policy, "best"), [])

    assert ladder.start_degraded(signals) is ladder.first


@pytest.mark.parametrize(
    ("unavailable", "left"), [([], ["fast", "tiny"]), (["fast"], ["tiny"]), (["fast", "tiny"], [])]
)
def test_a_cheaper_place_that_takes_no_requests_is_none(
    policy: Policy, signals: Any, unavailable: list[str], left: list[str]
) -> None:
    signals.unavailable.update(unavailable)
    request = InferenceRequest(protocol=Protocol.OPENAI, model="assistant", prompt_tokens=100)

    places = cheaper_places(policy, as_tenant(policy, "acme"), request, place(policy, "best"), signals)

    assert [each.cluster.name for each in places] == left
