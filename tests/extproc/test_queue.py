"""Whose turn it is: priority, age and shares between tenants."""

from __future__ import annotations

from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from extproc.lane import Waiter
from extproc.queue import STARVED_GRANTS, STARVED_SECONDS, FairQueue
from tests.extproc.queues import asking, joined, serve_all


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
