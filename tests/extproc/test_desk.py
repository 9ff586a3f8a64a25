"""Waiting for a slot: who is served by which release, and that nobody who left takes one."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from msgspec.structs import replace

from extproc.desk import AdmissionDesk, Answer
from extproc.events import AcquireLease, JoinQueue, LeaseGranted, LeaseRefused, StoreFailed
from headgate.policy.model import Queue
from headgate.store import Lease, LeaseRequest, Scope, TakeOutcome
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


@pytest.fixture
def desk() -> Desk:
    return Desk()


# asking once


async def test_a_free_slot_is_granted_at_once(desk: Desk) -> None:
    answer = await asked(desk.desk, asking())

    assert isinstance(answer, LeaseGranted)
    assert (answer.lease.request, answer.waited_seconds) == (asking(), 0.0)


async def test_a_full_scope_is_named(desk: Desk) -> None:
    await desk.hold(asking())

    assert await asked(desk.desk, asking()) == LeaseRefused(Scope.CLUSTER, 1.0)


# being served


async def test_a_release_serves_the_waiter(desk: Desk) -> None:
    held = await desk.hold(asking())
    waiting = desk.wait("waiter", joining(asking()))

    desk.desk.release(held)
    answer = await waiting.answered

    assert isinstance(answer, LeaseGranted)
    assert answer.waited_seconds > 0.0
    assert (desk.in_flight(), desk.desk.queue.depth("best")) == (1, 0)


async def test_one_release_serves_one_waiter(desk: Desk) -> None:
    held = await desk.hold(asking())
    for name in "ab":
        desk.wait(name, joining(asking()))

    desk.desk.release(held)
    await settle()

    assert (desk.served, desk.in_flight(), desk.desk.queue.depth("best")) == (["a"], 1, 1)


async def test_two_releases_in_one_turn_serve_two_waiters(desk: Desk) -> None:
    held = [await desk.hold(asking(cluster_limit=2)) for _ in range(2)]
    for name in "abc":
        desk.wait(name, joining(asking(cluster_limit=2)))

    for lease in held:
        desk.desk.release(lease)
    await settle()

    assert (desk.served, desk.in_flight()) == (["a", "b"], 2)


async def test_a_slot_goes_to_the_better_tier_and_within_it_to_who_came_first(desk: Desk) -> None:
    held = await desk.hold(asking())
    waiting = {}
    for name, priority in (("c1", 2), ("b1", 1), ("a1", 0), ("b2", 1), ("a2", 0)):
        waiting[name] = desk.wait(name, joining(asking(tier=name[0]), priority=priority))

    desk.desk.release(held)
    for expected in ("a1", "a2", "b1", "b2", "c1"):
        await settle(lambda: bool(desk.served))
        assert desk.served == [expected]
        desk.served.clear()
        desk.desk.release(waiting[expected].lease)

    assert (desk.in_flight(), desk.desk.queue.depths()) == (0, {})


async def test_a_release_serves_only_those_it_helps(desk: Desk) -> None:
    best, fast = await desk.hold(asking()), await desk.hold(asking(cluster="fast"))
    desk.wait("best", joining(asking()))
    desk.wait("fast", joining(asking(cluster="fast"), priority=1))

    desk.desk.release(fast)
    await settle()
    assert desk.served == ["fast"]

    desk.desk.release(best)
    await settle()
    assert desk.served == ["fast", "best"]


@pytest.mark.parametrize(
    "blocked",
    [
        {"tenant": "globex", "tenant_limit": 0},
        {"tier": "batch", "tier_limit": 0},
        {"cluster": "fast", "cluster_limit": 0},
        {"tenant": "globex", "tokens": 1000, "cluster_token_limit": 10, "cluster_limit": 2},
    ],
    ids=["its tenant is full", "its tier is full", "its cluster is full", "it is too large for now"],
)
async def test_no_waiter_stands_behind_one_who_waits_for_something_else(desk: Desk, blocked: dict[str, Any]) -> None:
    held = await desk.hold(asking())
    for _ in range(3):
        desk.wait("blocked", joining(asking(**blocked)))
    desk.wait("behind", joining(asking(), priority=5))

    desk.desk.release(held)
    await settle()

    assert desk.served == ["behind"]


async def test_what_is_full_for_one_tier_may_be_free_for_another(desk: Desk) -> None:
    reserved = {"premium": 0.5}
    held = await desk.hold(asking(tier="batch", cluster_limit=2, reserved=reserved))
    desk.wait("batch", joining(asking(tier="batch", cluster_limit=2, reserved=reserved)))
    desk.wait("premium", joining(asking(cluster_limit=2, reserved=reserved), priority=5))

    other = await desk.hold(asking(cluster="fast"))
    desk.desk.release(other)
    await settle()

    assert desk.served == ["premium"]
    desk.desk.release(held)
    await settle()
    assert desk.served == ["premium", "batch"]


async def test_one_refused_just_before_a_release_is_not_left_waiting_for_the_next(desk: Desk) -> None:
    held = await desk.hold(asking())

    # The release comes between the refusal and the wait, and finds nobody waiting yet.
    assert isinstance(await asked(desk.desk, asking()), LeaseRefused)
    desk.store.release(held)
    waiting = Place(desk.desk, joining(asking()))
    await settle(waiting.answered.done)

    assert isinstance(waiting.lease, Lease)


# leaving


async def test_a_waiter_who_leaves_is_gone_at_once_and_takes_no_slot(desk: Desk) -> None:
    held = await desk.hold(asking())
    leaving = desk.wait("leaving", joining(asking()))
    desk.wait("staying", joining(asking()))

    leaving.leave()
    assert desk.desk.queue.depth("best") == 1

    desk.desk.release(held)
    await settle()
    assert (desk.served, desk.in_flight(), leaving.has_left) == (["staying"], 1, True)


@pytest.mark.parametrize("how", ["leaves", "gives up"])
async def test_the_place_of_one_who_goes_without_a_slot_is_the_next_ones_at_once(desk: Desk, how: str) -> None:
    await desk.hold(asking())
    going = desk.wait("going", joining(asking(), depth=1, max_wait_seconds=0.0 if how == "gives up" else FOR_EVER))

    if how == "leaves":
        going.leave()
    else:
        assert isinstance(await going.answered, LeaseRefused)
    coming = desk.wait("coming", joining(asking(), depth=1))
    await settle()

    assert not coming.answered.done()
    assert desk.desk.queue.depth("best") == 1


@pytest.mark.parametrize("turns_between", range(6))
async def test_a_slot_granted_around_the_turn_its_waiter_leaves_is_never_lost(desk: Desk, turns_between: int) -> None:
    held = await desk.hold(asking())
    leaving = desk.wait("leaving", joining(asking()))
    staying = desk.wait("staying", joining(asking()))

    desk.desk.release(held)
    for _ in range(turns_between):
        await asyncio.sleep(0)
    leaving.leave()
    await settle()

    if not leaving.has_left:
        desk.desk.release(leaving.lease)
        await settle()
    desk.desk.release(staying.lease)
    assert (desk.in_flight(), desk.desk.queue.depth("best")) == (0, 0)


async def test_leaving_after_the_answer_or_twice_changes_nothing(desk: Desk) -> None:
    held = await desk.hold(asking())
    served, leaving = (desk.wait(name, joining(asking())) for name in ("served", "leaving"))
    leaving.leave()

    desk.desk.release(held)
    await settle(served.answered.done)
    for place in (served, leaving):
        place.leave()
    await settle()

    assert (desk.in_flight(), desk.served, leaving.has_left) == (1, ["served"], True)


async def test_leaving_before_the_first_turn_leaves_nothing_behind(desk: Desk) -> None:
    held = await desk.hold(asking())
    waiting = Place(desk.desk, joining(asking()))

    waiting.leave()
    desk.desk.release(held)
    await settle()

    assert waiting.has_left
    assert (desk.desk.queue.depth("best"), desk.in_flight()) == (0, 0)


async def test_nobody_is_served_inside_a_release(desk: Desk) -> None:
    held = await desk.hold(asking())
    waiting = desk.wait("waiting", joining(asking()))

    desk.desk.release(held)

    assert not waiting.answered.done()
    await settle(waiting.answered.done)
    assert desk.in_flight() == 1


async def test_who_comes_between_a_release_and_its_dispatch_does_not_pass_who_waits(desk: Desk) -> None:
    held = await desk.hold(asking())
    waiting = desk.wait("waiting", joining(asking()))

    desk.desk.release(held)
    newcomer = await asked(desk.desk, asking())

    assert newcomer == LeaseRefused(Scope.CLUSTER, 1.0)
    await settle(waiting.answered.done)
    assert isinstance(waiting.lease, Lease)


async def test_ten_thousand_who_wait_cost_no_task(desk: Desk) -> None:
    await desk.hold(asking())

    for _ in range(10_000):
        desk.wait("waiting", joining(asking(), depth=10_000))

    assert asyncio.all_tasks() == {asyncio.current_task()}


# bounds


async def test_a_full_queue_refuses_at_once(desk: Desk) -> None:
    await desk.hold(asking())
    desk.wait("first", joining(asking(), depth=1))
    answers: list[Answer] = []

    assert desk.desk.wait(joining(asking(), depth=1), answers.append) is None

    assert answers == [LeaseRefused(Scope.CLUSTER, 1.0, "queue_full")]
    assert desk.desk.queue.depth("best") == 1


async def test_a_wait_ends_when_the_tier_says_so_and_leaves_the_queue(desk: Desk) -> None:
    held = await desk.hold(asking())

    answer = await desk.wait("waiting", joining(asking(), max_wait_seconds=0.01)).answered

    assert isinstance(answer, LeaseRefused)
    assert (answer.scope, answer.queue_reason) == (Scope.CLUSTER, "queue_timeout")
    assert answer.waited_seconds >= 0.009
    assert desk.desk.queue.depth("best") == 0
    desk.desk.release(held)
    await settle()
    assert desk.in_flight() == 0


async def test_a_tier_at_its_share_waits_in_vain_though_half_the_cluster_is_free(desk: Desk) -> None:
    batch = asking(tier="batch", cluster_limit=10, reserved={"premium": 0.5})
    for _ in range(5):
        await desk.hold(batch)

    answer = await desk.wait("batch", joining(batch, max_wait_seconds=0.01)).answered

    assert isinstance(answer, LeaseRefused)
    assert (answer.scope, answer.queue_reason) == (Scope.CLUSTER, "queue_timeout")
    assert (desk.in_flight(), desk.desk.queue.depths()) == (5, {})


@pytest.mark.parametrize(("others", "retry_after_seconds"), [(0, 1.0), (2, 34.6), (4, 69.2), (20, 120.0)])
async def test_one_who_waited_in_vain_is_told_when_those_still_waiting_will_have_been_served(
    desk: Desk, others: int, retry_after_seconds: float
) -> None:
    await desk.hold(asking())
    for number in range(others):
        desk.wait(str(number), joining(asking(tenant=f"t{number}")))
    in_vain = desk.wait("in vain", joining(asking(), max_wait_seconds=0.01))
    in_forty_seconds = asyncio.get_running_loop().time() + 40.0
    # Nobody was served meanwhile.
    lane = desk.desk.queue._lanes["best"]["premium"]
    lane.pace.look_ahead(10.0)
    lane.pace.watch(in_forty_seconds, is_contended=True)

    answer = await in_vain.answered

    assert isinstance(answer, LeaseRefused)
    assert answer.queue_reason == "queue_timeout"
    assert answer.retry_after_seconds == pytest.approx(retry_after_seconds, rel=0.01)


async def test_who_waits_no_time_at_all_is_asked_for_once_more(desk: Desk) -> None:
    waiting = desk.wait("waiting", joining(asking(), max_wait_seconds=0.0))

    assert isinstance(await waiting.answered, LeaseGranted)


# the store


class FailingStore(MemoryStore):
    """Gives no answer while told so."""

    is_down = True

    def acquire(self, request: LeaseRequest, answer: TakeOutcome) -> None:
        if self.is_down:
            answer(None)
        else:
            super().acquire(request, answer)


async def test_a_store_without_an_answer_is_an_answer() -> None:
    desk = AdmissionDesk(FailingStore(lambda: 0.0))

    assert await asked(desk, asking()) == StoreFailed()


async def test_waiters_outlast_a_store_that_fails_for_a_while() -> None:
    store = FailingStore(lambda: 0.0)
    store.is_down = False
    desk = AdmissionDesk(store)
    held = [await asked(desk, asking(cluster_limit=2)) for _ in range(2)]
    waiting = Place(desk, joining(asking(cluster_limit=2)))
    first, second = (answer.lease for answer in held if isinstance(answer, LeaseGranted))

    store.is_down = True
    desk.release(first)
    await settle()
    assert not waiting.answered.done()

    store.is_down = False
    desk.release(second)
    await settle(waiting.answered.done)
    assert isinstance(waiting.lease, Lease)


async def test_waiters_who_need_no_store_go_on_without_it() -> None:
    store = FailingStore(lambda: 0.0)
    store.is_down = False
    desk = AdmissionDesk(store)
    held = await asked(desk, asking())
    assert isinstance(held, LeaseGranted)
    waiting = [Place(desk, replace(joining(asking(tenant)), outlasts_store=False)) for tenant in ("acme", "globex")]
    waiting[0].leave()
    waiting.append(Place(desk, replace(joining(asking()), outlasts_store=False)))

    store.is_down = True
    desk.release(held.lease)
    await settle(waiting[2].answered.done)

    assert waiting[0].has_left
    assert all(isinstance(place.answered.result(), StoreFailed) for place in waiting[1:])
    assert desk.queue.depth("best") == 0


class RemoteStore(MemoryStore):
    """Decides at once and answers when the test says so, as a store across a network may."""

    def __init__(self) -> None:
        super().__init__(lambda: 0.0)
        self.is_away = False
        self.on_the_way: list[Callable[[], None]] = []

    def acquire(self, request: LeaseRequest, answer: TakeOutcome) -> None:
        if self.is_away:
            self.on_the_way.append(lambda: answer(None))
        else:
            super().acquire(request, lambda outcome: self.on_the_way.append(lambda: answer(outcome)))

    def deliver(self) -> None:
        """Everything that is on the way arrives."""
        arriving, self.on_the_way = self.on_the_way, []
        for arrive in arriving:
            arrive()

    def in_use(self) -> int:
        return self.in_flight(Scope.CLUSTER, "best")


class RemoteDesk:
    """A desk over a remote store whose one slot is held."""

    def __init__(self) -> None:
        self.store = RemoteStore()
        self.desk = AdmissionDesk(self.store)
        answers: list[Answer] = []
        self.desk.acquire(AcquireLease(asking(), 0), answers.append)
        assert answers == []
        self.store.deliver()
        [granted] = answers
        assert isinstance(granted, LeaseGranted)
        self.held = granted.lease

    async def arrived(self) -> None:
        """All answers, and the questions they lead to, have come and gone."""
        for _ in range(TURNS):
            self.store.deliver()
            await asyncio.sleep(0)


@pytest.fixture
async def remote() -> RemoteDesk:
    return RemoteDesk()


async def test_a_slot_granted_to_one_who_left_while_the_store_answered_goes_to_the_next(remote: RemoteDesk) -> None:
    leaving, staying = (Place(remote.desk, joining(asking())) for _ in range(2))
    await remote.arrived()
    remote.desk.release(remote.held)
    await settle(lambda: remote.store.in_use() == 1)

    leaving.leave()
    assert not staying.answered.done()
    await remote.arrived()

    assert leaving.has_left
    remote.desk.release(staying.lease)
    assert remote.store.in_use() == 0


async def test_a_no_from_before_a_release_says_nothing_about_now(remote: RemoteDesk) -> None:
    waiting = Place(remote.desk, joining(asking()))
    await settle(lambda: bool(remote.store.on_the_way))

    remote.desk.release(remote.held)
    remote.store.deliver()
    await remote.arrived()

    assert isinstance(waiting.lease, Lease)


async def test_a_store_that_was_away_before_a_release_is_asked_again_after_it(remote: RemoteDesk) -> None:
    remote.store.is_away = True
    waiting = Place(remote.desk, joining(asking()))
    await settle(lambda: bool(remote.store.on_the_way))

    remote.store.is_away = False
    remote.desk.release(remote.held)
    await remote.arrived()

    assert isinstance(waiting.lease, Lease)


async def test_one_question_is_open_at_a_time_for_those_who_wait(remote: RemoteDesk) -> None:
    for cluster in ("best", "fast", "tiny"):
        Place(remote.desk, joining(asking(cluster=cluster)))
    await settle()

    assert len(remote.store.on_the_way) == 1


async def test_one_who_left_a_store_that_fails_leaves_nobody_behind_it() -> None:
    store = RemoteStore()
    desk = AdmissionDesk(store)
    places = [Place(desk, replace(joining(asking(tenant)), outlasts_store=False)) for tenant in ("acme", "globex")]
    store.is_away = True
    await settle(lambda: bool(store.on_the_way))

    places[0].leave()
    while store.on_the_way:
        store.deliver()
        await settle()

    assert isinstance(places[1].answered.result(), StoreFailed)


async def test_who_gives_up_while_the_store_answers_gets_one_answer_and_no_slot(remote: RemoteDesk) -> None:
    remote.desk.release(remote.held)
    waiting = Place(remote.desk, joining(asking(), max_wait_seconds=0.01))

    answer = await waiting.answered
    await remote.arrived()

    assert isinstance(answer, LeaseRefused)
    assert answer.queue_reason == "queue_timeout"
    assert remote.store.in_use() == 0


async def test_a_store_with_a_bug_does_not_stop_those_who_wait_for_ever(caplog: pytest.LogCaptureFixture) -> None:
    class Broken(MemoryStore):
        is_broken = False

        def acquire(self, request: LeaseRequest, answer: TakeOutcome) -> None:
            if self.is_broken:
                raise ZeroDivisionError
            super().acquire(request, answer)

    store = Broken(lambda: 0.0)
    desk = AdmissionDesk(store)
    held = [await asked(desk, asking(cluster_limit=2)) for _ in range(2)]
    first, second = (answer.lease for answer in held if isinstance(answer, LeaseGranted))
    waiting = Place(desk, joining(asking(cluster_limit=2)))
    await settle()

    store.is_broken = True
    desk.release(first)
    await settle()
    store.is_broken = False
    desk.release(second)
    await settle(waiting.answered.done)

    assert isinstance(waiting.lease, Lease)
    assert [record.name for record in caplog.records] == ["asyncio"]


# prompts before it

BUSY: dict[str, Any] = {"cluster_limit": 10, "prompt_tokens": 10_000, "prompt_tokens_per_second": 1000.0}
HELD_BACK: dict[str, Any] = BUSY | {"tier": "batch", "max_backlog_seconds": 0.02}


async def test_a_lesser_tier_waits_behind_the_prompts_before_it_and_the_best_does_not(desk: Desk) -> None:
    await desk.hold(asking(**BUSY))

    answer = await asked(desk.desk, asking(**HELD_BACK))

    assert isinstance(answer, LeaseRefused)
    assert answer.scope is Scope.CLUSTER
    assert 0.0 < answer.retry_after_seconds <= 9.98
    assert isinstance(await asked(desk.desk, asking(**BUSY)), LeaseGranted)


async def test_whoever_was_held_back_is_served_when_the_prompts_are_computed_without_any_release(desk: Desk) -> None:
    short = {"prompt_tokens": 50}
    await desk.hold(asking(**BUSY | short))

    place = desk.wait("batch", joining(asking(**HELD_BACK | short), priority=3))

    assert isinstance(await asyncio.wait_for(place.answered, 10.0), LeaseGranted)


async def test_one_held_back_keeps_its_claim_before_lesser_tiers(desk: Desk) -> None:
    await desk.hold(asking(**BUSY))
    place = desk.wait("batch", joining(asking(**HELD_BACK), priority=3))
    await settle(lambda: desk.desk.queue.has_claim("best", 4))

    assert desk.desk.queue.has_claim("best", 4)
    assert not desk.desk.queue.has_claim("best", 2)
    place.leave()
    assert desk.desk.queue.depths() == {}


# a limit that changes


async def test_one_who_waits_is_served_as_soon_as_the_limit_rises_without_any_release() -> None:
    limit = 1
    store = MemoryStore(lambda: 0.0)
    desk = AdmissionDesk(store, lambda request: replace(request, cluster_limit=limit))
    assert isinstance(await asked(desk, asking()), LeaseGranted)
    place = Place(desk, joining(asking()))
    await settle()
    assert not place.answered.done()

    limit = 2
    desk.recheck("best")
    await settle(place.answered.done)

    assert place.lease.request.cluster_limit == 2


async def test_one_who_waited_gets_no_slot_that_the_limit_has_taken_away() -> None:
    limit = 2
    store = MemoryStore(lambda: 0.0)
    desk = AdmissionDesk(store, lambda request: replace(request, cluster_limit=limit))
    held = [await asked(desk, asking(cluster_limit=2)) for _ in range(2)]
    place = Place(desk, joining(asking(cluster_limit=2)))
    await settle()

    limit = 1
    assert isinstance(held[0], LeaseGranted)
    desk.release(held[0].lease)
    await settle()

    assert not place.answered.done()
    assert store.in_flight(Scope.CLUSTER, "best") == 1


async def test_a_wait_that_cannot_succeed_is_refused_at_once_with_the_time_it_would_take(desk: Desk) -> None:
    await desk.hold(asking())
    for number in range(20):
        desk.wait(str(number), joining(asking(tenant=f"t{number}"), max_wait_seconds=FOR_EVER))
    lane = desk.desk.queue._lanes["best"]["premium"]
    now = asyncio.get_running_loop().time()
    lane.pace.watch(now + 40.0, is_contended=True)

    place = Place.__new__(Place)
    place.answered = asyncio.get_running_loop().create_future()
    waiting = desk.desk.wait(joining(asking(), max_wait_seconds=10.0), place.answered.set_result)

    assert waiting is None
    answer = place.answered.result()
    assert isinstance(answer, LeaseRefused)
    assert (answer.queue_reason, answer.retry_after_seconds) == ("queue_too_long", 120.0)
