"""No slot for a tenant, a tier or a cluster: who stands aside until when, who passes, whose claim stands."""

from __future__ import annotations

from extproc.queue import FairQueue
from headgate.store import Scope
from tests.extproc.queues import asking, joined


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
