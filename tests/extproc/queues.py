"""What tests put into a queue, and how they empty it."""

from __future__ import annotations

import math

from extproc.lane import Waiter
from extproc.queue import FairQueue
from headgate.policy.model import Queue
from headgate.store import LeaseRequest

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


def serve_all(queue: FairQueue, cluster: str = "best", now: float = 0.0) -> list[Waiter]:
    served: list[Waiter] = []
    while (waiter := queue.next(cluster, now)) is not None:
        queue.granted(waiter, now)
        served.append(waiter)
    return served
