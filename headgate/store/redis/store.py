"""The store in Redis: one sidecar's side of it.

Whatever is asked and given back within a turn of the loop goes out as one call; while that is on its way, the next
call gathers. Between calls this side knows what it holds, so that a release takes effect here at once.
"""

from __future__ import annotations

import asyncio
import itertools
import math
import secrets
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import msgspec

from headgate.errors import StoreUnavailable
from headgate.policy.model import OnStoreFailure
from headgate.redis.connection import Client, disconnect
from headgate.store import Lease, LeaseRequest, Line, Scope, TakeOutcome, Usage
from headgate.store.redis.call import Answer, Behind, Call, Granted, Recovering, Reply, question
from headgate.store.redis.holdings import Holdings, as_text
from headgate.store.redis.link import CHANNEL, Link, Observe
from headgate.store.redis.news import News
from headgate.store.redis.turns import Turns

_QUESTIONS_AT_ONCE = 200
AGEING_SECONDS = 60.0
"""Among those who wait at several sidecars, so long a wait makes up for one step of a tier's priority."""
_CLAIM_SECONDS = 2.0
_RECOVERY_SECONDS = 1.0
"""Longer than a sidecar takes to see that its subscription is gone, to connect again and to say what it holds."""
_PARTS_OF_LIFE = 3
_DEADLINE_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class Asked:
    """A question that has not been answered yet."""

    lease_id: int
    request: LeaseRequest
    answer: TakeOutcome


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A call on its way, and what it is about."""

    call: Call
    asked: Sequence[Asked]
    released: Sequence[int]


class RedisStore:
    """Leases shared by all sidecars that use one Redis.

    Args:
        on_failure: what the policy in force says about questions that get no answer.
        clock: seconds, monotonic; the one of `LeaseRequest.waiting_since`.
        ageing_seconds: how long a wait makes up for one step of priority.
        lease_seconds: a lease that was not renewed for so long is free; renewed three times as often.
        deadline_seconds: of one call.
    """

    def __init__(
        self,
        client: Client,
        *,
        on_failure: Callable[[], OnStoreFailure],
        clock: Callable[[], float],
        ageing_seconds: float = AGEING_SECONDS,
        lease_seconds: float = 15.0,
        claim_seconds: float = _CLAIM_SECONDS,
        deadline_seconds: float = _DEADLINE_SECONDS,
        observe: Observe = lambda _seconds, _outcome: None,
    ) -> None:
        self._client = client
        self._clock = clock
        self._on_failure = on_failure
        self._ageing_seconds = ageing_seconds
        self._lease_seconds = lease_seconds
        self._claim_seconds = claim_seconds
        self._link = Link(client, clock, deadline_seconds, observe)
        self._news = News(client, CHANNEL, self._heard, self._connected)
        self._holdings = Holdings(lease_seconds)
        self._turns = Turns()
        self._numbers = itertools.count(1)
        self._birth: str | None = None
        self._recovers_until = -math.inf
        self._sidecars = 1
        self._asked: list[Asked] = []
        self._listeners: list[Callable[[Lease], None]] = []
        self._calling: asyncio.Task[None] | None = None
        self._beating: asyncio.Task[None] | None = None
        self._looking_again: set[str] = set()
        self._is_refresh_due = False
        self._is_behind = True
        self._renewed_at = float("-inf")

    # the life of the store

    async def start(self) -> str:
        """Begin to listen and to renew; there is no address to return."""
        self._news.start()
        self._beating = asyncio.get_running_loop().create_task(self._beat())
        return ""

    async def stop(self) -> None:
        """Say what is left to say, and that this sidecar is gone. Leases still held go by expiry."""
        if self._beating is not None:
            self._beating.cancel()
            await asyncio.wait([self._beating])
        await self._news.stop()
        if self._calling is not None:
            await asyncio.wait([self._calling])
        if self._link.is_closed:
            await self._say_goodbye()
        await disconnect(self._client)

    @property
    def is_answering(self) -> bool:
        """Whether Redis gave an answer, and goes on to; not while it is being told again what it has lost."""
        return self._birth is not None and self._link.is_closed and self._clock() >= self._recovers_until

    @property
    def sidecars(self) -> int:
        """How many were alive at the last answer, this one included."""
        return self._sidecars

    # the protocol

    def acquire(self, request: LeaseRequest, answer: TakeOutcome) -> None:
        """Ask Redis; without it, do as the policy says."""
        self._asked.append(Asked(self._holdings.new_id(), request, answer))
        if request.waiting_since is not None and request.cluster is not None:
            self._turns.asked(request.cluster)
        self._wake()

    def release(self, lease: Lease) -> None:
        """Give the slots back, here at once; Redis hears of it in this turn, or as soon as it is there again."""
        if self._holdings.release(lease, self._clock()):
            self._wake()
            self._tell_released(lease)

    def usage(self, cluster: str) -> Usage:
        """The latest known in-flight numbers of a cluster."""
        return Usage(self.in_flight(Scope.CLUSTER, cluster), self.in_flight(Scope.CLUSTER_TOKENS, cluster))

    def elsewhere(self, cluster: str) -> int:
        """The latest known number of other sidecars' requests on a cluster."""
        return self._holdings.view.elsewhere(Scope.CLUSTER, cluster, self._clock())

    def in_flight(self, scope: Scope, name: str) -> int:
        """The latest known number of leases of a tenant, tier or cluster."""
        return self._holdings.view.in_flight(scope, name, self._clock())

    def on_release(self, listener: Callable[[Lease], None]) -> None:
        """Call `listener` after every release, here or elsewhere."""
        self._listeners.append(listener)

    def serve_line(self, line: Line) -> None:
        """Let those who wait here have their turn among those who wait elsewhere."""
        self._turns.line = line

    def line_changed(self, cluster: str) -> None:
        """Somebody else is next at a cluster."""
        self._turns.changed(cluster)
        if self._turns.has_news:
            self._wake()

    # calls

    def _wake(self) -> None:
        if self._calling is None or self._calling.done():
            # The task begins in the loop's next turn: what else this turn brings goes with it.
            self._calling = asyncio.get_running_loop().create_task(self._call())

    async def _call(self) -> None:
        while self._asked or self._is_behind or self._has_news:
            if not self._link.admits():
                while self._asked:
                    self._answer_without(self._take_asked(len(self._asked)))
                return
            await self._send(self._outgoing())

    @property
    def _has_news(self) -> bool:
        return self._holdings.has_news or self._turns.has_news or self._is_refresh_due

    async def _send(self, outgoing: Outgoing) -> None:
        try:
            reply = await self._link.send(outgoing.call)
        except StoreUnavailable:
            self._is_behind = True
            for asked in outgoing.asked:
                self._holdings.doubt(asked.lease_id, asked.request, self._clock())
            self._turns.untold()
            self._answer_without(outgoing.asked)
            if not self._link.is_closed:
                # From now on the policy decides, for those who wait as well.
                self._ask_again()
            return
        if reply.is_lost:
            self._birth = reply.birth
            self._is_behind = True
            self._holdings.lost()
            self._turns.untold()
            self._asked[:0] = outgoing.asked
            return
        self._take(outgoing, reply)

    def _outgoing(self) -> Outgoing:
        now = self._clock()
        self._catch_up(now)
        released = self._holdings.releases(now)
        asked = self._take_asked(_QUESTIONS_AT_ONCE)
        refreshes, self._is_refresh_due = self._is_refresh_due, False
        call = msgspec.structs.replace(
            self._blank_call(),
            release=[as_text(lease_id) for lease_id in released],
            renew=[as_text(lease_id) for lease_id in self._holdings.take_renewals()],
            announce=self._holdings.take_untold(now),
            acquire=[question(each.request, now, as_text(each.lease_id)) for each in asked],
            claims=self._turns.take(now),
            waits=self._turns.is_waiting,
            refreshes=refreshes,
            look=self._holdings.view.take_wanted(all_of_policy=refreshes),
        )
        return Outgoing(call, asked, released)

    def _blank_call(self) -> Call:
        return Call(
            sidecar=self._holdings.sidecar,
            number=next(self._numbers),
            birth=self._birth,
            new_birth=secrets.token_hex(8),
            lease_us=round(self._lease_seconds * 1e6),
            claim_us=round(self._claim_seconds * 1e6),
            ageing_us=round(self._ageing_seconds * 1e6),
            recovery_ms=round(_RECOVERY_SECONDS * 1e3),
        )

    def _catch_up(self, now: float) -> None:
        """Renew everything, after a time without answers or when it is time."""
        if self._is_behind or now - self._renewed_at >= self._lease_seconds / _PARTS_OF_LIFE:
            self._is_behind = False
            self._is_refresh_due = True
            self._renewed_at = now
            self._holdings.renew_all()
            self._holdings.view.forget_stale(now)
            self._turns.refresh()

    def _take_asked(self, count: int) -> list[Asked]:
        taken, self._asked = self._asked[:count], self._asked[count:]
        return taken

    # answers

    def _take(self, outgoing: Outgoing, reply: Reply) -> None:
        now = self._clock()
        self._birth = reply.birth
        if reply.is_recovering:
            self._recovers_until = now + _RECOVERY_SECONDS
        # Not all have come back yet while Redis is being told again what it lost.
        self._sidecars = max(reply.sidecars, self._sidecars if reply.is_recovering else 1)
        self._holdings.released(outgoing.released)
        self._holdings.missed(reply.missing)
        granted: list[tuple[Asked, Lease]] = []
        for asked, answer in zip(outgoing.asked, reply.answers, strict=True):
            if isinstance(answer, Granted):
                granted.append((asked, self._holdings.granted(asked.lease_id, asked.request, now)))
        self._holdings.view.learn(reply.counts, now)
        for asked, lease in granted:
            asked.answer(lease)
        for asked, answer in zip(outgoing.asked, reply.answers, strict=True):
            self._refuse(asked, answer)
        for names in reply.reaped:
            self._tell_names(*names)
        if reply.is_open:
            self._ask_again()

    def _refuse(self, asked: Asked, answer: Answer) -> None:
        match answer:
            case Granted():
                return
            case Recovering():
                self._answer_without([asked])
            case Behind(refused, seconds):
                if asked.request.waiting_since is not None:
                    self._look_again(asked.request.cluster or "", seconds)
                asked.answer(refused)
            case _:
                asked.answer(answer)

    def _look_again(self, cluster: str, seconds: float) -> None:
        """Ask again when the claim that goes first is given up, should it be a dead sidecar's: nobody will say so."""
        if cluster not in self._looking_again:
            self._looking_again.add(cluster)
            asyncio.get_running_loop().call_later(seconds, self._claim_given_up, cluster)

    def _claim_given_up(self, cluster: str) -> None:
        self._looking_again.discard(cluster)
        self._tell_names("", "", cluster)

    def _answer_without(self, questions: Iterable[Asked]) -> None:
        is_local = self._on_failure() is OnStoreFailure.LOCAL
        for asked in questions:
            if is_local:
                asked.answer(self._holdings.grant_share(asked.request, self._sidecars, self._clock()))
            else:
                asked.answer(None)

    # what others do

    def _heard(self, message: bytes) -> None:
        sidecar, names = msgspec.json.decode(message, type=tuple[str, list[tuple[str, str, str, str]]])
        if sidecar != self._holdings.sidecar:
            for tenant, tier, cluster, to in names:
                if to in ("", self._holdings.sidecar):
                    self._tell_names(tenant, tier, cluster)

    def _connected(self) -> None:
        self._link.forgive()
        self._is_behind = True
        self._wake()
        self._ask_again()

    def _tell_names(self, tenant: str, tier: str, cluster: str) -> None:
        self._tell_released(Lease(0, LeaseRequest(tenant=tenant, tier=tier, cluster=cluster or None), self._clock()))

    def _tell_released(self, lease: Lease) -> None:
        for listener in self._listeners:
            listener(lease)

    def _ask_again(self) -> None:
        if self._turns.line is not None:
            self._turns.line.ask_again()

    # time

    async def _beat(self) -> None:
        """Renew in time; tell claims again before they are given up; find out whether Redis is there again."""
        while True:
            await asyncio.sleep(min(self._claim_seconds, self._lease_seconds) / _PARTS_OF_LIFE)
            if self._turns.is_waiting:
                self._turns.refresh()
                self._is_refresh_due = True
            is_due = self._clock() - self._renewed_at >= self._lease_seconds / _PARTS_OF_LIFE
            wants_numbers = self._sidecars > 1 and self._holdings.view.is_wanting
            self._is_refresh_due = self._is_refresh_due or is_due or wants_numbers
            if self._is_behind or self._has_news:
                self._wake()

    async def _say_goodbye(self) -> None:
        try:
            while self._holdings.has_news and self._link.is_closed:
                await self._send(self._outgoing())
            call = msgspec.structs.replace(self._blank_call(), claims=self._turns.take_back_all(), leaves=True)
            await self._link.send(call)
        except StoreUnavailable:
            # It expires by itself.
            return
