"""Whose turn it is: priority, age, shares between tenants, and who need not be asked."""

from __future__ import annotations

import math
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from extproc.lane import Waiter
from extproc.queue import (
    PATIENT_SECONDS,
    STARVED_GRANTS,
    STARVED_SECONDS,
    FairQueue,
    NoPlace,
)
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
    """Whatever the line's pace: the request itself would wait for ever."""
    waiter = queue.join(
        request,
        queue=limits,
        priority=priority,
        weight=weight,
        size_bytes=size_bytes,
        now=now,
        max_wait_seconds=math.inf,
    )
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


def test_of_three_tenants_that_ask_alike_each_is_served_once_in_every_three_turns() -> None:
    queue = FairQueue()
    for name in "abc":
        for _ in range(3):
            joined(queue, asking(name))

    served = tenants(serve_all(queue))

    assert all(set(served[start : start + 3]) == {"a", "b", "c"} for start in range(7))


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


def test_ten_tenants_with_unequal_load_get_equal_shares_while_all_have_something_waiting() -> None:
    queue = FairQueue()
    for index, load in enumerate(range(1, 11)):
        for _ in range(20 * load):
            joined(queue, asking(f"tenant-{index}"))

    served = Counter(tenants(serve_all(queue)[:200]))

    assert set(served.values()) == {20}


def test_a_tier_nobody_was_served_from_for_long_gets_the_next_slot() -> None:
    queue = FairQueue()
    old = joined(queue, asking("old", tier="batch"), priority=3, now=0.0)
    fresh = joined(queue, asking("fresh"), priority=0, now=1.0)

    assert queue.next("best", STARVED_SECONDS - 0.1) is fresh
    assert queue.next("best", STARVED_SECONDS) is old


def test_starved_tiers_get_no_more_than_one_slot_in_eight_however_long_they_wait() -> None:
    queue = FairQueue()
    for _ in range(100):
        joined(queue, asking("busy"), priority=0)
        joined(queue, asking("idle", tier="async"), priority=2)
        joined(queue, asking("idle", tier="batch"), priority=3)

    tiers = [waiter.request.tier for waiter in serve_all(queue, now=10 * STARVED_SECONDS)[:90]]

    served = Counter(tiers)
    # Served now, neither starves now any more: one each, apart from each other.
    assert served == {"premium": 88, "async": 1, "batch": 1}
    assert abs(tiers.index("async") - tiers.index("batch")) == STARVED_GRANTS + 1


@settings(max_examples=50, deadline=None)
@given(st.floats(0.05, 5.0), st.integers(1, 4))
def test_no_tier_starves_for_longer_than_the_documented_bound(slot_seconds: float, tiers: int) -> None:
    queue = FairQueue()
    served_at = dict.fromkeys(range(tiers), 0.0)
    longest: Counter[int] = Counter()
    now = 0.0
    for _ in range(400):
        for tier in range(tiers):
            while queue.depths().get(("best", f"tier{tier}"), 0) < 2:
                joined(queue, asking(tier=f"tier{tier}"), priority=tier, now=now)
        now += slot_seconds
        waiter = queue.next("best", now)
        assert waiter is not None
        tier = int(waiter.request.tier.removeprefix("tier"))
        longest[tier] = max(longest[tier], now - served_at[tier])
        served_at[tier] = now
        queue.granted(waiter, now)

    bound = STARVED_SECONDS + (STARVED_GRANTS + 1) * tiers * slot_seconds
    assert max(longest.values()) <= bound + slot_seconds


def test_waiting_long_does_not_make_turns_unfair() -> None:
    queue = FairQueue()
    for _ in range(30):
        joined(queue, asking("busy"), now=0.0)
    for _ in range(10):
        joined(queue, asking("late"), now=10.0)

    served = Counter(tenants(serve_all(queue, now=100.0)[:20]))

    assert served == {"busy": 10, "late": 10}


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
    queue.refused(big, Scope.CLUSTER_TOKENS, PATIENT_SECONDS)
    assert queue.next("best", PATIENT_SECONDS) is None


def kept_room(queue: FairQueue) -> Waiter:
    """A batch request of long ago that is too big for the room left."""
    big = joined(queue, asking("big", tier="batch", tokens=90_000), priority=3)
    queue.refused(big, Scope.CLUSTER_TOKENS, PATIENT_SECONDS)
    return big


def test_room_that_frees_goes_to_the_one_it_is_kept_for_before_all_others() -> None:
    queue = FairQueue()
    big = kept_room(queue)
    joined(queue, asking("small"), priority=0, now=PATIENT_SECONDS)

    queue.released(asking("x"))

    assert queue.next("best", PATIENT_SECONDS) is big


def test_no_newcomer_of_its_priority_takes_the_room_kept_for_a_big_one() -> None:
    queue = FairQueue()
    kept_room(queue)

    assert queue.has_claim("best", 3)
    assert not queue.has_claim("best", 2)
    joined(queue, asking("newcomer", tier="best_effort"), priority=4, now=PATIENT_SECONDS)
    assert queue.next("best", PATIENT_SECONDS) is None


def test_room_kept_for_one_who_leaves_is_for_those_behind_it() -> None:
    queue = FairQueue()
    big = kept_room(queue)
    small = joined(queue, asking("small", tier="best_effort"), priority=4, now=PATIENT_SECONDS)

    queue.leave(big, PATIENT_SECONDS)

    assert queue.next("best", PATIENT_SECONDS) is small
    assert not queue.has_claim("best", 3)


def test_those_behind_one_too_big_are_asked_when_it_leaves() -> None:
    queue = FairQueue()
    big = joined(queue, asking("acme", tokens=1000))
    small = joined(queue, asking("acme"))
    queue.refused(big, Scope.CLUSTER_TOKENS, 0.0)
    assert queue.next("best", 0.0) is None

    queue.leave(big, 0.0)

    assert queue.next("best", 0.0) is small


def test_a_tier_full_of_requests_too_big_is_asked_again_when_one_of_them_leaves() -> None:
    queue = FairQueue()
    big = [joined(queue, asking(f"tenant-{number}", tokens=1000)) for number in range(16)]
    small = joined(queue, asking("small"))
    while (waiter := queue.next("best", 0.0)) is not None and waiter is not small:
        queue.refused(waiter, Scope.CLUSTER_TOKENS, 0.0)
    assert waiter is None

    queue.leave(big[3], 0.0)

    assert queue.next("best", 0.0) is small


def test_one_that_leaves_from_behind_one_too_big_has_nobody_asked() -> None:
    queue = FairQueue()
    big, behind = joined(queue, asking("acme", tokens=1000)), joined(queue, asking("acme"))
    queue.refused(big, Scope.CLUSTER_TOKENS, 0.0)

    queue.leave(behind, 0.0)

    assert queue.next("best", 0.0) is None


def test_one_that_waits_for_its_own_tenant_keeps_no_room() -> None:
    queue = FairQueue()
    big = kept_room(queue)
    small = joined(queue, asking("small", tier="batch"), priority=3, now=PATIENT_SECONDS)
    queue.released(asking("x"))

    queue.refused(big, Scope.TENANT, PATIENT_SECONDS)

    assert queue.next("best", PATIENT_SECONDS) is small


def test_a_tier_held_back_keeps_its_claim_before_lesser_ones_that_wait_and_before_newcomers() -> None:
    queue = FairQueue()
    held_back = joined(queue, asking(tier="async"), priority=2)
    joined(queue, asking(tier="batch"), priority=3)

    queue.hold_back(held_back)
    assert queue.next("best", 0.0) is None
    assert queue.has_claim("best", 3)
    better = joined(queue, asking(), priority=0)
    assert queue.next("best", 0.0) is better
    queue.granted(better, 0.0)

    queue.reopen("best")
    assert queue.next("best", 0.0) is held_back


# a wait that cannot succeed

TEN_SECONDS = Queue(max_wait_seconds=10.0, max_depth=1000)


def served_every(queue: FairQueue, gap_seconds: float, *, until: float, start: float = 0.0, priority: int = 0) -> float:
    """One served and another come, again and again: the line stays as long as it is. The time afterwards."""
    now = start
    while now < until:
        now += gap_seconds
        waiter = queue.next("best", now)
        assert waiter is not None
        queue.granted(waiter, now)
        joined(queue, waiter.request, priority=priority, limits=TEN_SECONDS, now=now)
    return now


def ask(queue: FairQueue, tenant: str = "acme", *, now: float, limits: Queue = TEN_SECONDS) -> Waiter | NoPlace:
    return queue.join(asking(tenant), queue=limits, priority=0, weight=1.0, size_bytes=1, now=now)


def test_nobody_is_refused_while_the_pace_is_not_known() -> None:
    queue = FairQueue()

    answers = [ask(queue, f"t{number}", now=number / 1000) for number in range(500)]

    assert all(isinstance(answer, Waiter) for answer in answers)


def test_a_wait_that_may_come_too_late_is_refused_on_arrival() -> None:
    queue = FairQueue()
    for _ in range(20):
        joined(queue, asking(), limits=TEN_SECONDS)
    now = served_every(queue, 1.0, until=30.0)

    answer = ask(queue, now=now)

    assert isinstance(answer, NoPlace)
    assert answer.reason == "queue_too_long"
    assert answer.expected_wait_seconds == pytest.approx(21.0, rel=0.15)
    assert queue.depth("best") == 20


def test_a_wait_of_half_of_what_is_allowed_is_not_too_long() -> None:
    queue = FairQueue()
    for _ in range(3):
        joined(queue, asking(), limits=TEN_SECONDS)
    now = served_every(queue, 1.0, until=60.0)

    assert isinstance(ask(queue, now=now), Waiter)
    assert isinstance(ask(queue, now=now), NoPlace)


def test_a_client_less_patient_than_its_tier_is_refused_by_its_own_patience() -> None:
    queue = FairQueue()
    for _ in range(5):
        joined(queue, asking(), limits=TEN_SECONDS)
    now = served_every(queue, 1.0, until=30.0)

    def asked(patience_seconds: float) -> Waiter | NoPlace:
        return queue.join(
            asking(),
            queue=TEN_SECONDS,
            priority=0,
            weight=1.0,
            size_bytes=1,
            now=now,
            max_wait_seconds=patience_seconds,
        )

    assert isinstance(asked(12.0), NoPlace)
    assert isinstance(asked(14.0), Waiter)


def test_a_newcomer_reckons_with_its_own_tenants_line_and_not_with_a_longer_one() -> None:
    queue = FairQueue()
    for _ in range(40):
        joined(queue, asking("flood"), limits=TEN_SECONDS)
    now = served_every(queue, 1.0, until=30.0)

    assert isinstance(ask(queue, "modest", now=now), Waiter)
    assert ask(queue, "flood", now=now) == NoPlace("queue_too_long", pytest.approx(42.0, rel=0.15))


def test_the_expected_wait_grows_with_the_line_and_so_does_retry_after() -> None:
    queue = FairQueue()
    for _ in range(13):
        joined(queue, asking(), limits=TEN_SECONDS)
    now = served_every(queue, 1.0, until=30.0)
    impatient = Queue(max_wait_seconds=10.0, max_depth=0)

    waits = []
    for _ in range(4):
        answer = ask(queue, now=now, limits=impatient)
        assert isinstance(answer, NoPlace)
        waits.append(answer.expected_wait_seconds)
        queue._lanes["best"]["premium"].add(
            Waiter(ticket=10**6 + len(waits), request=asking(), weight=1.0, size_bytes=1, joined_at=now)
        )

    assert waits == sorted(set(waits))


def test_nobody_ahead_means_nobody_is_refused_however_slow_the_line_was() -> None:
    queue = FairQueue()
    for _ in range(3):
        joined(queue, asking(), limits=TEN_SECONDS)
    now = served_every(queue, 9.0, until=60.0)
    serve_all(queue, now=now)

    assert isinstance(ask(queue, now=now), Waiter)


def test_a_line_that_stands_still_lets_in_one_at_a_time_and_recovers_as_soon_as_it_moves() -> None:
    queue = FairQueue()
    stuck = [joined(queue, asking(f"t{number}"), limits=TEN_SECONDS) for number in range(20)]
    assert isinstance(ask(queue, now=15.0), NoPlace)
    for waiter in stuck:
        queue.leave(waiter, 15.0)

    assert isinstance(ask(queue, now=15.0), Waiter)
    assert isinstance(ask(queue, now=15.0), NoPlace)
    now = 15.0
    while now < 20.0:
        now += 0.1
        for waiter in serve_all(queue, now=now):
            joined(queue, waiter.request, limits=TEN_SECONDS, now=now)

    assert all(isinstance(ask(queue, f"t{number}", now=now), Waiter) for number in range(10))


def ask_batch(queue: FairQueue, *, now: float) -> Waiter | NoPlace:
    return queue.join(asking(tier="batch"), queue=TEN_SECONDS, priority=3, weight=1.0, size_bytes=1, now=now)


def test_a_tier_that_gets_nothing_is_refused_on_arrival_but_for_one_who_waits_for_what_may_come() -> None:
    queue = FairQueue()
    for _ in range(3):
        joined(queue, asking(), limits=TEN_SECONDS)
    assert isinstance(ask_batch(queue, now=0.0), Waiter)
    now = served_every(queue, 0.5, until=10.0)

    assert ask_batch(queue, now=now) == NoPlace("queue_too_long", pytest.approx(40.0, rel=0.2))
    assert queue.depths()["best", "batch"] == 1


def test_what_lesser_tiers_are_handed_tells_a_tier_its_pace_before_anybody_of_it_was_served() -> None:
    queue = FairQueue()
    queue.leave(joined(queue, asking(), limits=TEN_SECONDS), 0.0)
    for _ in range(30):
        joined(queue, asking(tier="batch"), priority=3, limits=TEN_SECONDS)
    now = 0.0
    for _ in range(20):
        now += 0.5
        waiter = queue.next("best", now)
        assert waiter is not None
        queue.granted(waiter, now)

    answers = [ask(queue, now=now) for _ in range(12)]

    places = [answer for answer in answers if isinstance(answer, Waiter)]
    assert 7 <= len(places) <= 10  # two a second for half of ten seconds


def test_what_waits_in_better_tiers_is_before_a_newcomer_and_what_waits_in_lesser_ones_is_not() -> None:
    queue = FairQueue()
    for _ in range(4):
        joined(queue, asking(tier="batch"), priority=3, limits=TEN_SECONDS)
    now = served_every(queue, 0.5, until=10.0, priority=3)
    assert isinstance(ask_batch(queue, now=now), Waiter)

    for _ in range(40):
        joined(queue, asking(), limits=TEN_SECONDS, now=now)

    assert isinstance(ask_batch(queue, now=now), NoPlace)
    assert isinstance(
        queue.join(asking(tier="first"), queue=TEN_SECONDS, priority=-1, weight=1.0, size_bytes=1, now=now), Waiter
    )


def test_a_tier_at_its_own_limit_tells_others_nothing_about_the_cluster() -> None:
    queue = FairQueue()
    limited = joined(queue, asking(), limits=TEN_SECONDS)
    queue.leave(joined(queue, asking(tier="batch"), priority=3, limits=TEN_SECONDS), 0.0)
    queue.refused(limited, Scope.TIER, 0.0)

    assert all(isinstance(ask_batch(queue, now=60.0 + number / 1000), Waiter) for number in range(20))


def test_those_too_big_for_the_room_left_are_still_before_a_newcomer() -> None:
    queue = FairQueue()
    for _ in range(20):
        joined(queue, asking(), limits=TEN_SECONDS)
    now = served_every(queue, 1.0, until=15.0)
    big = queue.next("best", now)
    assert big is not None

    queue.refused(big, Scope.CLUSTER_TOKENS, now)

    assert isinstance(ask(queue, now=now), NoPlace)
    assert isinstance(ask(queue, "other", now=now), Waiter)


def test_a_burst_after_a_quiet_time_is_queued_whatever_its_tier_got_before() -> None:
    queue = FairQueue()
    for _ in range(3):
        joined(queue, asking(), limits=TEN_SECONDS)
    ask_batch(queue, now=0.0)
    now = served_every(queue, 0.5, until=30.0)
    assert isinstance(ask_batch(queue, now=now), NoPlace)
    serve_all(queue, now=now)

    assert all(isinstance(ask_batch(queue, now=now + 2.0 + number / 1000), Waiter) for number in range(100))


def test_time_in_which_nobody_waited_says_nothing_about_the_pace() -> None:
    queue = FairQueue()
    gone = joined(queue, asking(), limits=TEN_SECONDS)
    queue.leave(gone, 1.0)

    assert all(isinstance(ask(queue, now=1000.0 + number / 1000), Waiter) for number in range(20))


def test_time_spent_waiting_for_ones_own_tenant_says_nothing_about_the_pace() -> None:
    queue = FairQueue()
    aside = joined(queue, asking("aside"), limits=TEN_SECONDS)
    queue.refused(aside, Scope.TENANT, 0.0)

    assert all(isinstance(ask(queue, f"t{number}", now=100.0), Waiter) for number in range(20))


def test_a_thousand_tenants_are_estimated_by_a_few_of_them() -> None:
    queue = FairQueue()
    for number in range(900):
        joined(queue, asking(f"t{number}"), limits=TEN_SECONDS)
    now = served_every(queue, 1.0, until=30.0)

    answer = ask(queue, "newcomer", now=now)

    assert answer == NoPlace("queue_too_long", pytest.approx(901.0, rel=0.2))


def test_when_the_claims_before_a_newcomer_are_met_follows_from_the_pace() -> None:
    queue = FairQueue()
    for _ in range(6):
        joined(queue, asking(), limits=TEN_SECONDS)
    served_every(queue, 1.0, until=30.0)

    assert queue.claims_met_in_seconds("best", 0) == pytest.approx(6.0, rel=0.2)
    assert queue.claims_met_in_seconds("best", -1) is None
    assert queue.claims_met_in_seconds("elsewhere", 0) is None


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


def test_a_thousand_tenants_that_each_wait_once_are_all_served_and_leave_nothing_behind() -> None:
    queue = FairQueue()
    waiters = [joined(queue, asking(f"t{number}")) for number in range(1000)]

    assert {waiter.ticket for waiter in serve_all(queue)} == {waiter.ticket for waiter in waiters}
    assert len(queue) == 0
    assert queue.depths() == {}


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
                queue.leave(gone, now)
                queue.leave(gone, now)
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
