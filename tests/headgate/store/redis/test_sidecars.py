"""Several sidecars over one Redis: what one holds the others lack, and what one gives back the others get."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from msgspec.structs import replace

from headgate.store import Claim, Lease, LeaseRequest, Refused, Scope, Usage
from headgate.store.redis.store import RedisStore

PATIENCE_SECONDS = 20.0
REQUEST = LeaseRequest(tenant="acme", tier="premium", cluster="best", tokens=100, cluster_limit=2)
Start = Callable[..., Awaitable[RedisStore]]
PATIENT = {"lease_seconds": 600.0, "claim_seconds": 600.0}
"""Nothing is told again for so long: only news wakes anybody."""


async def ask(store: RedisStore, request: LeaseRequest = REQUEST) -> Lease | Refused | None:
    answered: asyncio.Future[Lease | Refused | None] = asyncio.get_running_loop().create_future()
    store.acquire(request, answered.set_result)
    async with asyncio.timeout(PATIENCE_SECONDS):
        return await answered


async def granted(store: RedisStore, request: LeaseRequest = REQUEST) -> Lease:
    answer = await ask(store, request)
    assert isinstance(answer, Lease)
    return answer


async def until(holds: Callable[[], Any]) -> None:
    """Wait until a condition, plain or awaitable, holds."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while True:
            result = holds()
            if await result if isinstance(result, Awaitable) else result:
                return
            await asyncio.sleep(0.005)


class OneLine:
    """Those who wait at one sidecar, asked for as soon as something may be free."""

    def __init__(self, store: RedisStore, *requests: LeaseRequest) -> None:
        self.store = store
        self.waiting = list(requests)
        self.served: list[Lease] = []
        self.is_asking = False
        store.serve_line(self)
        store.on_release(lambda _: self.ask_again())

    def clusters(self) -> list[str]:
        return sorted({request.cluster or "" for request in self.waiting})

    def claims(self, cluster: str) -> list[Claim]:
        mine = [request for request in self.waiting if request.cluster == cluster]
        return [Claim(mine[0], len(mine))] if mine else []

    def ask_again(self) -> None:
        if self.waiting and not self.is_asking:
            self.is_asking = True
            self.store.acquire(self.waiting[0], self.take)

    def take(self, outcome: Lease | Refused | None) -> None:
        self.is_asking = False
        if isinstance(outcome, Lease):
            self.served.append(outcome)
            self.waiting.pop(0)
            self.store.line_changed(outcome.request.cluster or "")

    def leave(self) -> None:
        gone = self.waiting.pop(0)
        self.store.line_changed(gone.cluster or "")

    async def stand(self) -> None:
        """Ask once, and be refused."""
        self.ask_again()
        await until(lambda: not self.is_asking)
        assert not self.served


def waiting(priority: int = 0, seconds: float = 0.0, **changes: Any) -> LeaseRequest:
    return replace(REQUEST, priority=priority, waiting_since=time.monotonic() - seconds, **changes)


# sharing


async def test_what_one_sidecar_holds_another_lacks(sidecar: Start) -> None:
    one, other = await sidecar(), await sidecar()
    held = [await granted(one), await granted(other)]

    refusal = await ask(other)

    assert isinstance(refusal, Refused)
    assert (refusal.scope, refusal.retry_after_seconds) == (Scope.CLUSTER, 0.5)
    assert len({lease.id for lease in held}) == 2
    assert other.usage("best") == Usage(requests=2, tokens=200)


async def test_what_one_sidecar_gives_back_another_gets(sidecar: Start, ledger: Any) -> None:
    one, other = await sidecar(), await sidecar()
    held = [await granted(one), await granted(one)]

    one.release(held[0])
    await until(lambda: _count(ledger, "cbest", 1))

    await granted(other)


async def _count(ledger: Any, field: str, expected: int) -> bool:
    return bool(await ledger.count(field) == expected)


async def test_what_runs_elsewhere_is_told_apart_from_what_runs_here(sidecar: Start) -> None:
    one, other = await sidecar(), await sidecar()
    wide = replace(REQUEST, cluster_limit=5)
    for _ in range(3):
        await granted(one, wide)

    await granted(other, wide)

    assert (other.usage("best").requests, other.elsewhere("best")) == (4, 3)
    assert one.elsewhere("fast") == 0


async def test_sidecars_know_how_many_they_are(sidecar: Start) -> None:
    one, other = await sidecar(lease_seconds=1.0), await sidecar(lease_seconds=1.0)
    await until(lambda: (one.sidecars, other.sidecars) == (2, 2))

    await other.stop()

    await until(lambda: one.sidecars == 1)


async def test_the_numbers_of_others_are_asked_for_when_somebody_looks(sidecar: Start) -> None:
    one, other = await sidecar(lease_seconds=1.0), await sidecar(lease_seconds=1.0)
    lease = await granted(one)

    await until(lambda: other.in_flight(Scope.TENANT, "acme") == 1)
    assert other.usage("best").requests == 0 or other.usage("best") == Usage(1, 100)
    one.release(lease)
    await until(lambda: other.in_flight(Scope.TENANT, "acme") == 0)


async def test_all_that_is_asked_in_one_turn_is_one_call(sidecar: Start, ledger: Any) -> None:
    store = await sidecar()
    request = replace(REQUEST, cluster_limit=None)
    await granted(store, request)
    before = await ledger.calls()

    await asyncio.gather(*(granted(store, request) for _ in range(100)))

    assert await ledger.calls() - before == 1


async def test_the_retry_is_told_from_how_long_leases_are_held_at_all_sidecars(sidecar: Start, ledger: Any) -> None:
    store = await sidecar()
    await ledger.client.hset("{headgate}:means", "best", "8")
    held = [await granted(store), await granted(store)]

    refusal = await ask(store)

    assert isinstance(refusal, Refused)
    assert refusal.retry_after_seconds == 4.0
    store.release(held[0])
    await until(lambda: _count(ledger, "cbest", 1))
    # A tenth of the newest, which was held next to no time.
    assert 7.2 <= float(await ledger.client.hget("{headgate}:means", "best")) < 7.3


# leases that nobody gives back


async def test_leases_of_a_sidecar_that_died_expire_and_wake_those_who_wait(sidecar: Start, ledger: Any) -> None:
    dead, other = await sidecar(lease_seconds=0.5), await sidecar(lease_seconds=0.5)
    await granted(dead)
    await granted(dead)
    await _die(dead)
    line = OneLine(other, waiting())
    await line.stand()

    await until(lambda: line.served)
    other.release(line.served[0])

    await until(ledger.is_empty)


async def _die(store: RedisStore) -> None:
    """Fall silent without a word, as a killed process does."""
    assert store._beating is not None
    store._beating.cancel()
    await store._news.stop()
    if store._calling is not None:
        await asyncio.wait([store._calling])
    store._wake = lambda: None


async def test_leases_that_are_held_longer_than_their_life_are_renewed_all_in_one_call(
    sidecar: Start, ledger: Any
) -> None:
    store = await sidecar(lease_seconds=0.6)
    request = replace(REQUEST, cluster_limit=None)
    leases = [await granted(store, request) for _ in range(20)]
    before, began_at = await ledger.calls(), time.monotonic()

    await until(lambda: time.monotonic() - began_at > 1.5)

    assert await ledger.leases() == 20
    # Every 0.2 s; at each beat at most once.
    assert await ledger.calls() - before <= 9
    for lease in leases:
        store.release(lease)
    await until(ledger.is_empty)


async def test_a_sidecar_that_stops_takes_back_its_claims_and_tells_its_releases(sidecar: Start, ledger: Any) -> None:
    store = await sidecar()
    lease, other = await granted(store), await granted(store)
    line = OneLine(store, waiting())
    await line.stand()
    store.release(lease)
    store.release(other)

    await store.stop()

    assert await ledger.client.exists("{headgate}:claims:best", "{headgate}:sidecars", "{headgate}:calls") == 0


# turns


async def test_a_release_at_one_sidecar_serves_who_waits_at_another(sidecar: Start) -> None:
    one, other = await sidecar(**PATIENT), await sidecar(**PATIENT)
    held = [await granted(one), await granted(one)]
    line = OneLine(other, waiting())
    await line.stand()

    one.release(held[0])

    await until(lambda: line.served)


async def test_a_newcomer_stays_behind_one_who_waits_elsewhere(sidecar: Start, ledger: Any) -> None:
    one, other = await sidecar(), await sidecar()
    held = [await granted(one), await granted(one)]
    line = OneLine(other, waiting())
    await line.stand()
    line.is_asking = True  # It does not hear of the release yet.

    one.release(held[0])
    refusal = await ask(one)

    assert isinstance(refusal, Refused)
    assert refusal.scope is Scope.CLUSTER
    line.is_asking = False
    line.ask_again()
    await until(lambda: line.served)


@pytest.mark.parametrize(
    ("claim", "asker"),
    [
        ((0, 0.0), (1, 5.0)),  # the better priority goes first
        ((1, 9.0), (1, 5.0)),  # of equal ones the older
        ((4, 81.0), (0, 0.0)),  # a wait of 20 seconds makes up for a step
        ((1, 25.0), (0, 3.0)),  # and of those equal by that, the older
    ],
)
async def test_of_two_who_wait_at_different_sidecars_one_goes_first(
    claim: tuple[int, float], asker: tuple[int, float], sidecar: Start
) -> None:
    one, other = await sidecar(), await sidecar()
    held = [await granted(one), await granted(one)]
    first = OneLine(other, waiting(*claim))
    await first.stand()
    second = OneLine(one, waiting(*asker))
    await second.stand()
    second.waiting, later = [], second.waiting
    first.is_asking = True

    one.release(held[0])
    assert isinstance(await ask(one, later[0]), Refused)

    first.is_asking = False
    first.ask_again()
    await until(lambda: first.served)


@pytest.mark.parametrize(("claim", "asker"), [((1, 5.0), (0, 0.0)), ((1, 5.0), (1, 9.0)), ((4, 79.0), (0, 0.0))])
async def test_a_worse_claim_holds_up_nobody(
    claim: tuple[int, float], asker: tuple[int, float], sidecar: Start
) -> None:
    one, other = await sidecar(), await sidecar()
    held = [await granted(one), await granted(one)]
    line = OneLine(other, waiting(*claim))
    await line.stand()
    line.is_asking = True

    one.release(held[0])

    await granted(one, waiting(*asker))


async def test_a_claim_that_cannot_be_served_holds_up_nobody(sidecar: Start) -> None:
    one, other = await sidecar(), await sidecar()
    await granted(other, replace(REQUEST, tenant="globex"))
    line = OneLine(other, waiting(tenant="globex", tenant_limit=1))
    await line.stand()

    await granted(one)


async def test_what_is_left_after_those_who_go_first_is_for_the_next(sidecar: Start) -> None:
    one, other = await sidecar(), await sidecar()
    wide = {"cluster_limit": 4}
    held = [await granted(one, replace(REQUEST, **wide)) for _ in range(4)]
    line = OneLine(other, *(waiting(**wide) for _ in range(2)))
    await line.stand()
    line.is_asking = True

    for lease in held[:3]:
        one.release(lease)
    await granted(one, replace(REQUEST, **wide))

    assert isinstance(await ask(one, replace(REQUEST, **wide)), Refused)


async def one_behind_another(one: RedisStore, other: RedisStore) -> tuple[OneLine, OneLine]:
    """A free slot that is the first's, at the other sidecar, and so not the second's."""
    held = [await granted(one), await granted(one)]
    first = OneLine(other, waiting(seconds=5.0))
    await first.stand()
    second = OneLine(one, waiting())
    await second.stand()
    first.is_asking = True
    one.release(held[0])
    await until(lambda: not second.is_asking)
    assert not second.served
    return first, second


async def test_one_who_leaves_makes_way_for_those_behind(sidecar: Start) -> None:
    one, other = await sidecar(**PATIENT), await sidecar(**PATIENT)
    first, second = await one_behind_another(one, other)

    first.leave()

    await until(lambda: second.served)


async def test_one_who_may_not_run_any_more_makes_way_for_those_behind(sidecar: Start) -> None:
    one, other = await sidecar(**PATIENT), await sidecar(**PATIENT)
    first, second = await one_behind_another(one, other)

    first.waiting[0] = replace(first.waiting[0], tenant_limit=1)
    other.line_changed("best")

    await until(lambda: second.served)


async def test_the_claim_of_a_dead_sidecar_is_gone_soon(sidecar: Start) -> None:
    one, dead = await sidecar(claim_seconds=0.3), await sidecar(claim_seconds=0.3)
    held = [await granted(one), await granted(one)]
    line = OneLine(dead, waiting(seconds=5.0))
    await line.stand()
    line.is_asking = True
    await _die(dead)
    second = OneLine(one, waiting())
    await second.stand()

    one.release(held[0])

    await until(lambda: second.served)


async def test_slots_go_to_those_who_wait_in_the_order_of_their_coming_wherever_they_wait(sidecar: Start) -> None:
    stores = [await sidecar() for _ in range(3)]
    one_slot = {"cluster_limit": 1}
    held = await granted(stores[0], replace(REQUEST, **one_slot))
    order: list[float] = []
    queued = [waiting(seconds=60.0 - at, **one_slot) for at in range(12)]
    lines = [OneLine(store, *queued[at::3]) for at, store in enumerate(stores)]
    for line in lines:
        await line.stand()

    def note(line: OneLine, outcome: Lease | Refused | None) -> None:
        OneLine.take(line, outcome)
        if isinstance(outcome, Lease):
            order.append(outcome.request.waiting_since or 0.0)
            line.store.release(outcome)

    for line in lines:
        line.take = lambda outcome, line=line: note(line, outcome)
    stores[0].release(held)

    await until(lambda: len(order) == 12)
    assert order == sorted(order)
