"""A request too big for the room left: who passes it, for how long, and for whom the room is kept."""

from __future__ import annotations

from extproc.lane import Waiter
from extproc.queue import PATIENT_SECONDS, FairQueue
from headgate.store import Scope
from tests.extproc.queues import asking, joined


def kept_room(queue: FairQueue) -> Waiter:
    """A batch request of long ago that is too big for the room left."""
    big = joined(queue, asking("big", tier="batch", tokens=90_000), priority=3)
    queue.refused(big, Scope.CLUSTER_TOKENS, PATIENT_SECONDS)
    return big


def test_a_smaller_request_passes_one_too_big_for_the_room_left_until_that_has_waited_long() -> None:
    queue = FairQueue()
    big = joined(queue, asking("big", tokens=90_000))
    small = joined(queue, asking("small", tokens=10))

    queue.refused(big, Scope.CLUSTER_TOKENS, 0.0)
    assert queue.next("best", 0.0) is small
    queue.released(asking("x"))
    queue.refused(big, Scope.CLUSTER_TOKENS, PATIENT_SECONDS)
    assert queue.next("best", PATIENT_SECONDS) is None


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
