"""How many a line takes, and that it keeps nobody who left and forgets nobody who stays."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from extproc.lane import Waiter
from extproc.queue import FairQueue, NoPlace
from headgate.policy.model import Queue
from headgate.store import Scope
from tests.extproc.queues import DEEP, asking, joined, serve_all


def refused(queue: FairQueue, *, limits: Queue = DEEP, size_bytes: int = 10, now: float = 0.0) -> NoPlace:
    answer = queue.join(asking(), queue=limits, priority=0, weight=1.0, size_bytes=size_bytes, now=now)
    assert isinstance(answer, NoPlace)
    return answer


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
