"""Who waits, in what order, and how many may."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from extproc.queue import Waiter, WaitingQueue
from headgate.store import LeaseRequest


def asking(tenant: str = "acme", tier: str = "premium", cluster: str | None = "best") -> LeaseRequest:
    return LeaseRequest(tenant=tenant, tier=tier, cluster=cluster)


def joined(queue: WaitingQueue, request: LeaseRequest, priority: int = 0, max_depth: int = 100) -> Waiter:
    waiter = queue.join(request, priority, max_depth)
    assert waiter is not None
    return waiter


def tenants(queue: WaitingQueue) -> list[str]:
    return [waiter.request.tenant for waiter in queue.in_order()]


def test_a_lower_priority_number_is_served_first_and_equals_in_the_order_they_came() -> None:
    queue = WaitingQueue()
    for tenant, priority in (("a", 2), ("b", 0), ("c", 1), ("d", 0), ("e", 2)):
        joined(queue, asking(tenant), priority)

    assert tenants(queue) == ["b", "d", "c", "a", "e"]


def test_a_line_holds_as_many_as_it_is_deep() -> None:
    queue = WaitingQueue()

    assert [queue.join(asking(), 0, 2) is not None for _ in range(3)] == [True, True, False]
    assert queue.depth("best") == 2


def test_a_line_of_depth_zero_holds_nobody() -> None:
    assert WaitingQueue().join(asking(), 0, 0) is None


def test_every_cluster_and_tier_has_a_line_of_its_own() -> None:
    queue = WaitingQueue()
    joined(queue, asking(), max_depth=1)
    joined(queue, asking(tier="interactive"), 1, max_depth=1)
    joined(queue, asking(cluster="fast"), max_depth=1)
    joined(queue, asking(cluster=None), max_depth=1)

    assert queue.depth("best") == 2
    assert queue.depth("fast") == 1
    assert queue.depths() == {
        ("best", "premium"): 1,
        ("best", "interactive"): 1,
        ("fast", "premium"): 1,
        ("", "premium"): 1,
    }


def test_who_leaves_makes_room_and_leaves_once_only() -> None:
    queue = WaitingQueue()
    waiter = joined(queue, asking(), max_depth=1)

    queue.leave(waiter)
    queue.leave(waiter)

    assert (queue.depth("best"), queue.depths(), tenants(queue)) == (0, {}, [])
    joined(queue, asking(), max_depth=1)


def test_joining_and_leaving_while_the_queue_is_walked_disturbs_nobody() -> None:
    queue = WaitingQueue()
    first, second, third = joined(queue, asking()), joined(queue, asking()), joined(queue, asking(), 1)

    seen = []
    for waiter in queue.in_order():
        seen.append(waiter)
        queue.leave(waiter)
        if waiter is first:
            joined(queue, asking("late"), 1)

    assert seen[:3] == [first, second, third]
    assert [waiter.request.tenant for waiter in seen[3:]] == ["late"]


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.booleans()), max_size=40))
def test_depths_always_add_up_to_who_is_there(comings: list[tuple[int, bool]]) -> None:
    queue = WaitingQueue()
    waiting: list[Waiter] = []
    for priority, is_leaving in comings:
        if is_leaving and waiting:
            queue.leave(waiting.pop(priority % len(waiting)))
        else:
            waiting.append(joined(queue, asking(tier=f"tier{priority}"), priority))

    assert sorted(waiter.ticket for waiter in queue.in_order()) == sorted(waiter.ticket for waiter in waiting)
    assert [w.priority for w in queue.in_order()] == sorted(w.priority for w in waiting)
    assert queue.depth("best") == sum(queue.depths().values()) == len(waiting)
