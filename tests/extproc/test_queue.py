"""Whose turn it is: priority, age, shares between tenants, and who need not be asked."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from extproc.lane import Waiter
from extproc.queue import AGEING_SECONDS, FairQueue, NoPlace
from headgate.policy.model import Queue
from headgate.store import LeaseRequest, Scope

DEEP = Queue(max_wait_seconds=10.0, max_depth=100_000)


def asking(tenant: str = "acme", tier: str = "premium", cluster: str = "best", tokens: int = 100) -> LeaseRequest:
    return LeaseRequest(tenant=tenant, tier=tier, cluster=cluster, tokens=tokens)


def joined(
    queue: FairQueue,
    request: LeaseRequest,
    *,
    priority: int = 0,
    weight: float = 1.0,
    now: float = 0.0,
    limits: Queue = DEEP,
    size_bytes: int = 10,
) -> Waiter:
    waiter = queue.join(request, queue=limits, priority=priority, weight=weight, size_bytes=size_bytes, now=now)
    assert isinstance(waiter, Waiter)
    return waiter


def refused(queue: FairQueue, *, limits: Queue = DEEP, size_bytes: int = 10, now: float = 0.0) -> NoPlace:
    answer = queue.join(asking(), queue=limits, priority=0, weight=1.0, size_bytes=size_bytes, now=now)
    assert isinstance(answer, NoPlace)
    return answer


def serve_all(queue: FairQueue, cluster: str = "best", now: float = 0.0) -> list[Waiter]:
    served: list[Waiter] = []
    while (waiter := queue.next(cluster, now)) is not None:
        queue.granted(waiter, now)
        served.append(waiter)
    return served


def tenants(waiters: list[Waiter]) -> list[str]:
    return [waiter.request.tenant for waiter in waiters]


def test_the_better_tier_goes_first_whoever_came_first() -> None:
    queue = FairQueue()
    joined(queue, asking("late", tier="batch"), priority=3)
    joined(queue, asking("early", tier="premium"), priority=0)

    assert tenants(serve_all(queue)) == ["early", "late"]


def test_a_tenants_own_requests_stay_in_order() -> None:
    queue = FairQueue()
    waiters = [joined(queue, asking(tokens=tokens)) for tokens in (500, 1, 300, 2)]

    assert serve_all(queue) == waiters


def test_tenants_of_equal_weight_take_turns_by_tokens_not_by_requests() -> None:
    queue = FairQueue()
    for _ in range(40):
        joined(queue, asking("small", tokens=100))
    for _ in range(10):
        joined(queue, asking("large", tokens=400))

    tokens: Counter[str] = Counter()
    for waiter in serve_all(queue)[:20]:
        tokens[waiter.request.tenant] += waiter.request.tokens

    assert abs(tokens["small"] - tokens["large"]) <= 400


def test_a_weight_of_three_is_served_three_times_as_much() -> None:
    queue = FairQueue()
    for _ in range(400):
        joined(queue, asking("heavy"), weight=3.0)
        joined(queue, asking("light"), weight=1.0)

    served = Counter(tenants(serve_all(queue)[:200]))

    assert served == {"heavy": 150, "light": 50}


def test_a_weight_below_one_is_served_less_but_is_served() -> None:
    queue = FairQueue()
    for _ in range(100):
        joined(queue, asking("half"), weight=0.5)
        joined(queue, asking("whole"), weight=1.0)

    served = Counter(tenants(serve_all(queue)[:60]))

    assert served == {"half": 20, "whole": 40}


@pytest.mark.parametrize("offered", [list(range(1, 11))])
def test_ten_tenants_with_unequal_load_get_equal_shares_while_all_have_something_waiting(offered: list[int]) -> None:
    queue = FairQueue()
    for index, load in enumerate(offered):
        for _ in range(20 * load):
            joined(queue, asking(f"tenant-{index}"))

    served = Counter(tenants(serve_all(queue)[:200]))

    assert set(served.values()) == {20}


def test_waiting_counts_as_priority_so_that_no_tier_starves() -> None:
    queue = FairQueue()
    old = joined(queue, asking("old", tier="batch"), priority=3, now=0.0)
    late = 3 * AGEING_SECONDS

    assert queue.next("best", late - 1.0) is old
    fresh = joined(queue, asking("fresh"), priority=0, now=late - 1.0)
    assert queue.next("best", late - 1.0) is fresh
    assert queue.next("best", late) is old


def test_age_serves_the_one_who_has_it_and_not_whose_turn_it_is() -> None:
    queue = FairQueue()
    joined(queue, asking("busy"))
    patient = joined(queue, asking("patient", tokens=10_000), now=0.5)
    queue.granted(queue.next("best", 0.0) or patient, 0.0)
    joined(queue, asking("busy"), now=1.0)

    assert queue.next("best", AGEING_SECONDS + 0.5) is patient


def test_a_line_is_bounded_in_requests_and_in_bytes() -> None:
    limits = Queue(max_wait_seconds=1.0, max_depth=2, max_bytes=100)
    queue = FairQueue()
    joined(queue, asking(), limits=limits, size_bytes=60)

    assert refused(queue, limits=limits, size_bytes=41) == NoPlace("queue_full", None)
    joined(queue, asking(), limits=limits, size_bytes=40)
    assert refused(queue, limits=limits, size_bytes=0) == NoPlace("queue_full", None)
    assert queue.depth("best") == 2


def test_a_line_that_takes_nobody_leaves_no_trace() -> None:
    queue = FairQueue()
    closed = Queue(max_wait_seconds=1.0, max_depth=0)

    assert refused(queue, limits=closed) == NoPlace("queue_full", None)
    assert queue.depths() == {}


def test_a_tenant_at_its_own_limit_stands_aside_until_one_of_its_requests_ends() -> None:
    queue = FairQueue()
    blocked = joined(queue, asking("blocked"))
    free = joined(queue, asking("free"))

    queue.refused(blocked, Scope.TENANT, 0.0)
    assert queue.next("best", 0.0) is free
    queue.granted(free, 0.0)
    assert queue.next("best", 0.0) is None
    assert queue.released(asking("somebody")) == {"best"}
    assert queue.next("best", 0.0) is None
    assert queue.released(asking("blocked", cluster="elsewhere")) == {"best"}
    assert queue.next("best", 0.0) is blocked


def test_a_full_tier_waits_for_its_own_release_and_others_pass() -> None:
    queue = FairQueue()
    premium = joined(queue, asking("a"), priority=0)
    batch = joined(queue, asking("b", tier="batch"), priority=3)

    queue.refused(premium, Scope.TIER, 0.0)

    assert queue.next("best", 0.0) is batch
    assert queue.released(asking("x", tier="premium", cluster="elsewhere")) == {"best"}
    assert queue.next("best", 0.0) is premium


def test_a_cluster_full_for_one_tier_may_have_a_reserved_slot_for_another() -> None:
    queue = FairQueue()
    premium = joined(queue, asking("a"), priority=0)
    batch = joined(queue, asking("b", tier="batch"), priority=3)

    queue.refused(premium, Scope.CLUSTER, 0.0)

    assert queue.next("best", 0.0) is batch
    queue.refused(batch, Scope.CLUSTER, 0.0)
    assert queue.next("best", 0.0) is None
    assert queue.released(asking("x", tier="whatever")) == {"best"}
    assert queue.next("best", 0.0) is premium


def test_a_smaller_request_passes_one_too_big_for_the_room_left_until_that_has_waited_long() -> None:
    queue = FairQueue()
    big = joined(queue, asking("big", tokens=90_000))
    small = joined(queue, asking("small", tokens=10))

    queue.refused(big, Scope.CLUSTER_TOKENS, 0.0)
    assert queue.next("best", 0.0) is small
    queue.released(asking("x"))
    queue.refused(big, Scope.CLUSTER_TOKENS, AGEING_SECONDS)
    assert queue.next("best", AGEING_SECONDS) is None


def test_a_newcomer_does_not_pass_one_of_its_priority_who_could_be_served() -> None:
    queue = FairQueue()
    waiter = joined(queue, asking(), priority=1)

    assert queue.has_claim("best", 1)
    assert queue.has_claim("best", 2)
    assert not queue.has_claim("best", 0)
    assert not queue.has_claim("fast", 1)
    queue.refused(waiter, Scope.TENANT, 0.0)
    assert not queue.has_claim("best", 1)


def test_a_newcomer_may_ask_where_the_store_has_said_no_to_those_before_it() -> None:
    queue = FairQueue()
    premium = joined(queue, asking(), priority=0)

    queue.refused(premium, Scope.CLUSTER, 0.0)

    assert not queue.has_claim("best", 3)


@settings(max_examples=150, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["join", "leave", "serve", "tenant", "tier", "cluster", "tokens", "release"]),
            st.integers(0, 5),
            st.integers(0, 2),
            st.integers(1, 5000),
        ),
        max_size=80,
    )
)
def test_whoever_joins_leaves_once_and_nobody_is_forgotten(steps: list[tuple[str, int, int, int]]) -> None:
    queue = FairQueue()
    inside: dict[int, Waiter] = {}
    now = 0.0
    for action, tenant, tier, number in steps:
        now += number / 1000
        request = asking(f"t{tenant}", tier=f"tier{tier}", tokens=number)
        waiter = queue.next("best", now)
        match action:
            case "join":
                new = joined(queue, request, priority=tier, now=now)
                inside[new.ticket] = new
            case "leave" if inside:
                gone = inside.pop(sorted(inside)[number % len(inside)])
                queue.leave(gone)
                queue.leave(gone)
            case "serve" if waiter is not None:
                queue.granted(waiter, now)
                del inside[waiter.ticket]
            case "tenant" | "tier" | "cluster" | "tokens" if waiter is not None:
                scopes = {"tenant": Scope.TENANT, "tier": Scope.TIER, "cluster": Scope.CLUSTER}
                queue.refused(waiter, scopes.get(action, Scope.CLUSTER_TOKENS), now)
            case "release":
                queue.released(request)
        assert len(queue) == len(inside) == queue.depth("best")

    for tenant in range(6):
        for tier in range(3):
            queue.released(asking(f"t{tenant}", tier=f"tier{tier}"))
    assert {waiter.ticket for waiter in serve_all(queue, now=now)} == set(inside)
    assert queue.depths() == {}
