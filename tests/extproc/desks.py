"""A desk over a memory store, who waits at it, and what a test asks of it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from extproc.desk import AdmissionDesk, Answer
from extproc.events import AcquireLease, JoinQueue, LeaseGranted
from headgate.policy.model import Queue
from headgate.store import Lease, LeaseRequest, Scope
from headgate.store.memory import MemoryStore

FOR_EVER = 3600.0
TURNS = 50


def asking(tenant: str = "acme", cluster: str = "best", tier: str = "premium", **limits: Any) -> LeaseRequest:
    """For a cluster of one slot unless told otherwise."""
    return LeaseRequest(**{"tenant": tenant, "tier": tier, "cluster": cluster, "cluster_limit": 1} | limits)


def joining(
    request: LeaseRequest, *, priority: int = 0, max_wait_seconds: float = FOR_EVER, depth: int = 100
) -> JoinQueue:
    return JoinQueue(
        request=request,
        queue=Queue(max_wait_seconds=max_wait_seconds, max_depth=depth),
        priority=priority,
        weight=1.0,
        size_bytes=100,
        max_wait_seconds=max_wait_seconds,
        give_up_reason="queue_timeout",
        scope=Scope.CLUSTER,
    )


async def settle(until: Callable[[], bool] = lambda: False) -> None:
    """Let the loop turn until the condition holds, or often enough for all that can happen to have happened."""
    for _ in range(TURNS):
        if until():
            return
        await asyncio.sleep(0)


async def asked(desk: AdmissionDesk, request: LeaseRequest) -> Answer:
    """The desk's one answer to a question."""
    answered: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
    desk.acquire(AcquireLease(request, 0), answered.set_result)
    return await answered


class Place:
    """One who waits: the answer, when it comes; a second one would be an InvalidStateError."""

    def __init__(self, desk: AdmissionDesk, effect: JoinQueue) -> None:
        self.answered: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._waiting = desk.wait(effect, self.answered.set_result)

    def leave(self) -> None:
        assert self._waiting is not None
        self._waiting.leave()

    @property
    def has_left(self) -> bool:
        """Whether no answer has come; to be asked when none can come any more."""
        return not self.answered.done()

    @property
    def lease(self) -> Lease:
        answer = self.answered.result()
        assert isinstance(answer, LeaseGranted)
        return answer.lease


class Desk:
    """A desk over a memory store, and who waits at it."""

    def __init__(self) -> None:
        self.store = MemoryStore(lambda: 0.0)
        self.desk = AdmissionDesk(self.store)
        self.served: list[str] = []

    async def hold(self, request: LeaseRequest) -> Lease:
        answer = await asked(self.desk, request)
        assert isinstance(answer, LeaseGranted)
        return answer.lease

    def wait(self, name: str, effect: JoinQueue) -> Place:
        """Stand in the queue under a name that shows in `served` when a slot is granted."""
        place = Place(self.desk, effect)
        place.answered.add_done_callback(lambda done: self._note(name, done.result()))
        return place

    def _note(self, name: str, answer: Answer) -> None:
        if isinstance(answer, LeaseGranted):
            self.served.append(name)

    def in_flight(self, cluster: str = "best") -> int:
        return self.store.in_flight(Scope.CLUSTER, cluster)
