"""The admission desk: puts an exchange's questions to the store, and keeps those who wait for an answer.

A release wakes the desk, which asks again for the waiters in the queue's order; nothing polls.
"""

from __future__ import annotations

import asyncio

from extproc.events import AcquireLease, JoinQueue, LeaseGranted, LeaseRefused, StoreFailed
from extproc.queue import Waiter, WaitingQueue
from headgate.errors import StoreUnavailable
from headgate.store import Lease, LeaseRequest, Refused, Scope, Store

Answer = LeaseGranted | LeaseRefused | StoreFailed


class AdmissionDesk:
    """One per sidecar; everything on one event loop."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.queue = WaitingQueue()
        self._waiting: dict[int, asyncio.Future[Lease]] = {}
        self._dispatching: asyncio.Task[None] | None = None
        self._is_dispatch_due = False
        store.on_release(self._on_release)

    async def acquire(self, effect: AcquireLease) -> Answer:
        """Ask once."""
        try:
            answer = await self._store.acquire(effect.request)
        except StoreUnavailable:
            return StoreFailed()
        if isinstance(answer, Refused):
            return LeaseRefused(answer.scope, answer.retry_after_seconds)
        return LeaseGranted(answer)

    async def wait(self, effect: JoinQueue) -> Answer:
        """Wait for a slot as long as the tier allows. Cancelling leaves the queue at once and takes no slot."""
        waiter = self.queue.join(effect.request, effect.priority, effect.queue.max_depth)
        if waiter is None:
            return LeaseRefused(effect.scope, 1.0, queue_reason="queue_full")
        loop = asyncio.get_running_loop()
        joined_at = loop.time()
        granted: asyncio.Future[Lease] = loop.create_future()
        self._waiting[waiter.ticket] = granted
        try:
            await asyncio.wait({granted}, timeout=effect.queue.max_wait_seconds)
        except asyncio.CancelledError:
            self._forget(waiter)
            if granted.done():
                # Granted in the very turn the client left: nobody will use the slot.
                await self.release(granted.result())
            raise
        self._forget(waiter)
        waited_seconds = loop.time() - joined_at
        if granted.done():
            return LeaseGranted(granted.result(), waited_seconds)
        return LeaseRefused(effect.scope, 1.0, queue_reason="queue_timeout", waited_seconds=waited_seconds)

    async def release(self, lease: Lease) -> None:
        """Give a slot back, whatever happens to the caller meanwhile."""
        await asyncio.shield(self._store.release(lease))

    def _forget(self, waiter: Waiter) -> None:
        self.queue.leave(waiter)
        self._waiting.pop(waiter.ticket, None)

    def _on_release(self, lease: Lease) -> None:
        del lease
        # A turn later: one refused just before this release stands in the queue by then and is not overlooked.
        asyncio.get_running_loop().call_soon(self._wake)

    def _wake(self) -> None:
        self._is_dispatch_due = bool(self._waiting)
        if self._is_dispatch_due and (self._dispatching is None or self._dispatching.done()):
            self._dispatching = asyncio.get_running_loop().create_task(self._dispatch())

    async def _dispatch(self) -> None:
        while self._is_dispatch_due:
            self._is_dispatch_due = False
            full: set[tuple[Scope, str, str]] = set()
            for waiter in self.queue.in_order():
                if waiter.ticket in self._waiting and not full & _scopes(waiter.request):
                    await self._offer(waiter, full)

    async def _offer(self, waiter: Waiter, full: set[tuple[Scope, str, str]]) -> None:
        """Ask for one waiter; what turned out full spares the others behind it the question."""
        try:
            answer = await self._store.acquire(waiter.request)
        except StoreUnavailable:
            return
        if isinstance(answer, Refused):
            if answer.scope is not Scope.CLUSTER_TOKENS:
                full.add(_scope_key(waiter.request, answer.scope))
            return
        granted = self._waiting.get(waiter.ticket)
        if granted is None or granted.done():
            await self.release(answer)
        else:
            self.queue.leave(waiter)
            granted.set_result(answer)


def _scope_key(request: LeaseRequest, scope: Scope) -> tuple[Scope, str, str]:
    match scope:
        case Scope.TENANT:
            return (scope, request.tenant, "")
        case Scope.TIER:
            return (scope, request.tier, "")
        case _:
            # Reservations make a cluster full for one tier and not for another.
            return (scope, request.cluster or "", request.tier)


def _scopes(request: LeaseRequest) -> set[tuple[Scope, str, str]]:
    return {_scope_key(request, scope) for scope in (Scope.TENANT, Scope.TIER, Scope.CLUSTER)}
