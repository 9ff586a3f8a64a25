"""A wait that cannot succeed: who is refused on arrival, by the pace of the line."""

from __future__ import annotations

import pytest

from extproc.lane import Waiter
from extproc.queue import FairQueue, NoPlace
from headgate.policy.model import Queue
from headgate.store import Scope
from tests.extproc.queues import asking, joined, serve_all

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
