"""The admission desk: puts an exchange's questions to the store, and keeps those who wait for an answer.

A release wakes the desk, which asks again for those it may concern, in the queue's order; nothing polls.
"""

from __future__ import annotations

import asyncio

from extproc.events import AcquireLease, JoinQueue, LeaseGranted, LeaseRefused, StoreFailed
from extproc.queue import FairQueue, Waiter
from headgate.errors import StoreUnavailable
from headgate.store import Lease, Refused, Scope, Store

Answer = LeaseGranted | LeaseRefused | StoreFailed
_RETRY_AFTER_SECONDS = 1.0
"""For a refusal that the store, which knows how long leases are held, was not asked about."""


class AdmissionDesk:
    """One per sidecar; everything on one event loop."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.queue = FairQueue()
        self._waiting: dict[int, asyncio.Future[Lease]] = {}
        self._due: set[str] = set()
        self._dispatching: asyncio.Task[None] | None = None
        self._releases = 0
        store.on_release(self._on_release)

    async def acquire(self, effect: AcquireLease) -> Answer:
        """Ask once; without asking, no to a request that would pass one that waits."""
        cluster = effect.request.cluster
        if cluster is not None and self.queue.has_claim(cluster, effect.priority):
            return LeaseRefused(Scope.CLUSTER, _RETRY_AFTER_SECONDS)
        try:
            answer = await self._store.acquire(effect.request)
        except StoreUnavailable:
            return StoreFailed()
        if isinstance(answer, Refused):
            return LeaseRefused(answer.scope, answer.retry_after_seconds)
        return LeaseGranted(answer)

    async def wait(self, effect: JoinQueue) -> Answer:
        """Wait for a slot. Cancelling leaves the queue at once and takes no slot."""
        loop = asyncio.get_running_loop()
        waiter = self.queue.join(
            effect.request,
            queue=effect.queue,
            priority=effect.priority,
            weight=effect.weight,
            size_bytes=effect.size_bytes,
            now=loop.time(),
        )
        if waiter is None:
            return LeaseRefused(effect.scope, _RETRY_AFTER_SECONDS, queue_reason="queue_full")
        granted: asyncio.Future[Lease] = loop.create_future()
        self._waiting[waiter.ticket] = granted
        # Something may have been released between the refusal and now.
        self._ask_again(effect.request.cluster or "")
        try:
            await asyncio.wait({granted}, timeout=effect.max_wait_seconds)
        except asyncio.CancelledError:
            self._forget(waiter)
            if granted.done():
                # Granted in the very turn the client left: nobody will use the slot.
                self.release(granted.result())
            raise
        self._forget(waiter)
        waited_seconds = loop.time() - waiter.joined_at
        if granted.done():
            return LeaseGranted(granted.result(), waited_seconds)
        return LeaseRefused(
            effect.scope, _RETRY_AFTER_SECONDS, queue_reason=effect.give_up_reason, waited_seconds=waited_seconds
        )

    def release(self, lease: Lease) -> None:
        """Give a slot back."""
        self._store.release(lease)

    def _forget(self, waiter: Waiter) -> None:
        was_in_line = waiter.ticket in self._waiting
        self.queue.leave(waiter)
        self._waiting.pop(waiter.ticket, None)
        if was_in_line and self.queue.depth(waiter.request.cluster or ""):
            # Room kept together for one who has left is for those behind it.
            self._ask_again(waiter.request.cluster or "")

    def _on_release(self, lease: Lease) -> None:
        self._releases += 1
        for cluster in self.queue.released(lease.request):
            self._ask_again(cluster)

    def _ask_again(self, cluster: str) -> None:
        self._due.add(cluster)
        if self._dispatching is None or self._dispatching.done():
            self._dispatching = asyncio.get_running_loop().create_task(self._dispatch())

    async def _dispatch(self) -> None:
        loop = asyncio.get_running_loop()
        while self._due:
            cluster = self._due.pop()
            while (waiter := self.queue.next(cluster, loop.time())) is not None:
                if not await self._offer(waiter, loop.time()):
                    break

    async def _offer(self, waiter: Waiter, now: float) -> bool:
        """Ask for the one whose turn it is; False when the store gives no answer."""
        releases_before = self._releases
        try:
            answer = await self._store.acquire(waiter.request)
        except StoreUnavailable:
            return False
        if isinstance(answer, Refused):
            # A no from before a release says nothing about now.
            if self._releases == releases_before:
                self.queue.refused(waiter, answer.scope, now)
            return True
        granted = self._waiting.get(waiter.ticket)
        if granted is None or granted.done():
            self.release(answer)
        else:
            self.queue.granted(waiter)
            granted.set_result(answer)
        return True
