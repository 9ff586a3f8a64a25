"""The admission desk: puts an exchange's questions to the store, and keeps those who wait for an answer.

A release wakes the desk, which asks again for those it may concern, in the queue's order; nothing polls, and nobody
who waits costs a task. Prompts a cluster has yet to compute hold back tiers that promise less.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial

from msgspec.structs import replace

from extproc.events import AcquireLease, JoinQueue, LeaseGranted, LeaseRefused, StoreFailed
from extproc.lane import Waiter
from extproc.prefill import PrefillBacklog
from extproc.queue import FairQueue, NoPlace
from headgate.store import Claim, Lease, LeaseRequest, Refused, Scope, Store
from headgate.store.ledger import MAX_RETRY_AFTER_SECONDS, MIN_RETRY_AFTER_SECONDS

Answer = LeaseGranted | LeaseRefused | StoreFailed
TakeAnswer = Callable[[Answer], None]
"""Told the answer, once. It may not raise: others are served in the same turn."""
_RETRY_AFTER_SECONDS = 1.0
"""For a refusal that the store was not asked about, while the pace of the queue is not known."""


class AdmissionDesk:
    """One per sidecar; everything on one event loop.

    Args:
        as_of_now: brings a question that has waited up to date.
    """

    def __init__(
        self, store: Store, as_of_now: Callable[[LeaseRequest], LeaseRequest] = lambda request: request
    ) -> None:
        self._store = store
        self._as_of_now = as_of_now
        self.queue = FairQueue()
        self._prefill = PrefillBacklog()
        self._held_back: set[str] = set()
        self._waiting: dict[int, Waiting] = {}
        self._due: set[str] = set()
        self._is_dispatch_due = False
        self._open_offer: _Offer | None = None
        self._releases = 0
        store.on_release(self._on_release)
        store.serve_line(self)

    def acquire(self, effect: AcquireLease, answer: TakeAnswer) -> None:
        """Ask once; without asking, no to a request that would pass one that waits.

        An answer of the store's comes when the store has it, even to one who has left: a lease is then to be released.
        """
        cluster = effect.request.cluster
        if cluster is not None and self.queue.has_claim(cluster, effect.priority):
            retry_after_seconds = _retry_after(self.queue.claims_met_in_seconds(cluster, effect.priority))
            answer(LeaseRefused(Scope.CLUSTER, retry_after_seconds))
            return
        held_back_seconds = self._held_back_seconds(effect.request)
        if held_back_seconds:
            answer(LeaseRefused(Scope.CLUSTER, _retry_after(held_back_seconds)))
            return
        self._store.acquire(effect.request, lambda outcome: answer(self._as_answer(outcome)))

    def wait(self, effect: JoinQueue, answer: TakeAnswer) -> Waiting | None:
        """Wait for a slot; None when there is no place, and `answer` has been told."""
        loop = asyncio.get_running_loop()
        waiter = self.queue.join(
            replace(effect.request, waiting_since=loop.time()),
            queue=effect.queue,
            priority=effect.priority,
            weight=effect.weight,
            size_bytes=effect.size_bytes,
            now=loop.time(),
            max_wait_seconds=effect.max_wait_seconds,
        )
        if isinstance(waiter, NoPlace):
            answer(LeaseRefused(effect.scope, _retry_after(waiter.expected_wait_seconds), waiter.reason))
            return None
        # Something may have been released between the refusal and now: asked before the time is up, however short.
        self._ask_again(effect.request.cluster or "")
        timer = loop.call_later(effect.max_wait_seconds, self._give_up, waiter.ticket, effect)
        waiting = Waiting(self, waiter, answer, timer, outlasts_store=effect.outlasts_store)
        self._waiting[waiter.ticket] = waiting
        return waiting

    def release(self, lease: Lease) -> None:
        """Give a slot back."""
        self._store.release(lease)

    def recheck(self, cluster: str) -> None:
        """There may be room at a cluster without a release: ask again for all who wait for some."""
        self.queue.reopen(cluster)
        self._store.line_changed(cluster)
        self._ask_again(cluster)

    def limits_changed(self) -> None:
        """Other limits are in force: those who wait are asked for, and stand before others, with these."""
        self.ask_again()
        for cluster in self.queue.clusters():
            self._store.line_changed(cluster)

    def clusters(self) -> list[str]:
        """The clusters somebody waits for here."""
        return self.queue.clusters()

    def claims(self, cluster: str) -> list[Claim]:
        """Who could be next there."""
        return [Claim(self._as_of_now(waiter.request), waiting) for waiter, waiting in self.queue.heads(cluster)]

    def ask_again(self) -> None:
        """Anything may have become free, unheard."""
        self._releases += 1
        self.queue.released_unheard()
        for cluster in self.queue.clusters():
            self._ask_again(cluster)

    def forget(self, waiter: Waiter) -> None:
        """Take one who leaves out of the queue; without effect for one who was served or told no."""
        if self._waiting.pop(waiter.ticket, None) is None:
            return
        self.queue.leave(waiter, _now())
        cluster = waiter.request.cluster or ""
        self._store.line_changed(cluster)
        if self.queue.depth(cluster):
            # Room kept together for one who has left is for those behind it.
            self._ask_again(cluster)

    def _give_up(self, ticket: int, effect: JoinQueue) -> None:
        waiting = self._waiting[ticket]
        self.forget(waiting.waiter)
        claims_met_in_seconds = self.queue.claims_met_in_seconds(effect.request.cluster or "", effect.priority)
        waiting.answer(
            LeaseRefused(
                effect.scope,
                _retry_after(claims_met_in_seconds),
                queue_reason=effect.give_up_reason,
                waited_seconds=_now() - waiting.waiter.joined_at,
            )
        )

    def _on_release(self, lease: Lease) -> None:
        self._releases += 1
        for cluster in self.queue.released(lease.request):
            self._ask_again(cluster)

    def _ask_again(self, cluster: str) -> None:
        self._due.add(cluster)
        if not self._is_dispatch_due:
            self._is_dispatch_due = True
            # Not now: all that is released in this turn is handed out in one go, and never inside a release.
            asyncio.get_running_loop().call_soon(self._dispatch)

    def _dispatch(self) -> None:
        """Offer a slot to one after another; goes on in `_settle` when the store takes its time."""
        self._is_dispatch_due = False
        while self._open_offer is None and (waiter := self._next()) is not None:
            if self._is_held_back(waiter):
                continue
            offer = _Offer(waiter, self._releases)
            self._store.acquire(self._as_of_now(waiter.request), partial(self._settle, offer))
            if not offer.is_settled:
                self._open_offer = offer

    def _is_held_back(self, waiter: Waiter) -> bool:
        """Whether prompts before it have to be computed first; then all of its tier wait until they are."""
        excess_seconds = self._held_back_seconds(waiter.request)
        if not excess_seconds:
            return False
        self.queue.hold_back(waiter)
        cluster = waiter.request.cluster or ""
        if cluster not in self._held_back:
            self._held_back.add(cluster)
            asyncio.get_running_loop().call_later(excess_seconds, self._on_computed, cluster)
        return True

    def _held_back_seconds(self, request: LeaseRequest) -> float:
        """How long prompts before it hold a request back."""
        # Few clusters say how fast they are; for the others not even the clock is asked.
        return 0.0 if request.prompt_tokens_per_second is None else self._prefill.excess_seconds(request, _now())

    def _note_sent(self, request: LeaseRequest) -> None:
        if request.prompt_tokens_per_second is not None:
            self._prefill.sent(request, _now())

    def _on_computed(self, cluster: str) -> None:
        self._held_back.discard(cluster)
        self.recheck(cluster)

    def _next(self) -> Waiter | None:
        while self._due:
            cluster = next(iter(self._due))
            waiter = self.queue.next(cluster, _now())
            if waiter is not None:
                return waiter
            self._due.discard(cluster)
        return None

    def _settle(self, offer: _Offer, outcome: Lease | Refused | None) -> None:
        offer.is_settled = True
        waiter = offer.waiter
        # A no from before a release says nothing about now.
        is_current = self._releases == offer.releases_before
        if isinstance(outcome, Lease):
            self._grant(waiter, outcome)
        elif outcome is None:
            self._go_without_store(waiter, is_current=is_current)
        elif is_current:
            self.queue.refused(waiter, outcome.scope, _now())
        if self._open_offer is offer:
            self._open_offer = None
            self._dispatch()

    def _go_without_store(self, waiter: Waiter, *, is_current: bool) -> None:
        """No answer: some wait on until the store is back, others are told, one after another."""
        waiting = self._waiting.get(waiter.ticket)
        if waiting is None:
            # Left meanwhile; those behind are asked for next.
            return
        if waiting.outlasts_store:
            if is_current:
                self._due.discard(waiter.request.cluster or "")
            return
        waiting.leave()
        waiting.answer(StoreFailed(_now() - waiter.joined_at))

    def _grant(self, waiter: Waiter, lease: Lease) -> None:
        waiting = self._waiting.pop(waiter.ticket, None)
        if waiting is None:
            # Left while the store made up its mind.
            self.release(lease)
            return
        self._note_sent(lease.request)
        self.queue.granted(waiter, _now())
        self._store.line_changed(waiter.request.cluster or "")
        waiting.timer.cancel()
        waiting.answer(LeaseGranted(lease, _now() - waiter.joined_at))

    def _as_answer(self, outcome: Lease | Refused | None) -> Answer:
        if outcome is None:
            return StoreFailed()
        if isinstance(outcome, Refused):
            return LeaseRefused(outcome.scope, outcome.retry_after_seconds)
        self._note_sent(outcome.request)
        return LeaseGranted(outcome)


class Waiting:
    """One place in the queue."""

    __slots__ = ("_desk", "answer", "outlasts_store", "timer", "waiter")

    def __init__(
        self,
        desk: AdmissionDesk,
        waiter: Waiter,
        answer: TakeAnswer,
        timer: asyncio.TimerHandle,
        *,
        outlasts_store: bool,
    ) -> None:
        self._desk = desk
        self.waiter = waiter
        self.answer = answer
        self.timer = timer
        self.outlasts_store = outlasts_store

    def leave(self) -> None:
        """Leave at once: no slot is taken any more, and no answer comes. Afterwards without effect."""
        self.timer.cancel()
        self._desk.forget(self.waiter)


class _Offer:
    """A question put to the store for one who waits."""

    __slots__ = ("is_settled", "releases_before", "waiter")

    def __init__(self, waiter: Waiter, releases_before: int) -> None:
        self.waiter = waiter
        self.releases_before = releases_before
        self.is_settled = False


def _now() -> float:
    return asyncio.get_running_loop().time()


def _retry_after(expected_wait_seconds: float | None) -> float:
    if expected_wait_seconds is None:
        return _RETRY_AFTER_SECONDS
    return min(max(expected_wait_seconds, MIN_RETRY_AFTER_SECONDS), MAX_RETRY_AFTER_SECONDS)
