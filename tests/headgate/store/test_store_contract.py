"""What every store promises, whatever it is made of."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

import pytest
from msgspec.structs import replace

from headgate.store import Lease, LeaseRequest, Refused, Scope, Store, Usage
from headgate.store.memory import MemoryStore

PATIENCE_SECONDS = 5.0
REQUEST = LeaseRequest(tenant="acme", tier="premium", cluster="best", tokens=100)


@pytest.fixture(params=["memory", "redis"])
async def store(request: pytest.FixtureRequest, sidecar: Callable[[], Awaitable[Store]]) -> Store:
    return MemoryStore(time.monotonic) if request.param == "memory" else await sidecar()


async def ask(store: Store, request: LeaseRequest) -> Lease | Refused | None:
    """The store's one answer, whenever it comes."""
    answered: asyncio.Future[Lease | Refused | None] = asyncio.get_running_loop().create_future()
    # A second answer would be an InvalidStateError here.
    store.acquire(request, answered.set_result)
    async with asyncio.timeout(PATIENCE_SECONDS):
        return await answered


async def granted(store: Store, request: LeaseRequest = REQUEST) -> Lease:
    answer = await ask(store, request)
    assert isinstance(answer, Lease)
    return answer


async def refused(store: Store, request: LeaseRequest) -> Refused:
    answer = await ask(store, request)
    assert isinstance(answer, Refused)
    return answer


async def test_a_lease_answers_the_question_it_was_asked_for(store: Store) -> None:
    first, second = await granted(store), await granted(store)

    assert first.request == second.request == REQUEST
    assert first.id != second.id


async def test_what_is_in_flight_is_known_by_scope(store: Store) -> None:
    assert store.usage("best") == Usage(requests=0, tokens=0)

    await granted(store)
    await granted(store, replace(REQUEST, tenant="globex", cluster="fast"))

    assert store.usage("best") == Usage(requests=1, tokens=100)
    assert store.usage("unheard-of") == Usage(requests=0, tokens=0)
    assert store.in_flight(Scope.TENANT, "acme") == 1
    assert store.in_flight(Scope.TIER, "premium") == 2
    assert store.in_flight(Scope.CLUSTER, "fast") == 1
    assert store.in_flight(Scope.CLUSTER_TOKENS, "fast") == 100


@pytest.mark.parametrize(
    ("limits", "scope"),
    [
        ({"tenant_limit": 1}, Scope.TENANT),
        ({"tier_limit": 1}, Scope.TIER),
        ({"cluster_limit": 1}, Scope.CLUSTER),
        ({"cluster_token_limit": 199}, Scope.CLUSTER_TOKENS),
        ({"cluster_limit": 4, "reserved": {"async": 0.75}}, Scope.CLUSTER),
        ({"cluster_token_limit": 400, "reserved": {"async": 0.75}}, Scope.CLUSTER_TOKENS),
    ],
)
async def test_a_full_scope_is_named_takes_nothing_and_says_when_to_ask_again(
    limits: dict[str, object], scope: Scope, store: Store
) -> None:
    request = replace(REQUEST, **limits)
    lease = await granted(store, request)

    refusal = await refused(store, request)

    assert refusal.scope is scope
    assert 0 < refusal.retry_after_seconds <= 120
    assert store.usage("best") == Usage(requests=1, tokens=100)
    store.release(lease)
    assert store.usage("best") == Usage(requests=0, tokens=0)
    await granted(store, request)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({"tenant_limit": 3}, {"tenant_limit": 1}),
        ({"tier_limit": 3}, {"tier_limit": 1}),
        ({"cluster_limit": 3}, {"cluster_limit": 1}),
        ({"cluster_token_limit": 300}, {"cluster_token_limit": 100}),
        ({"cluster_limit": 3}, {"cluster_limit": 4, "reserved": {"async": 0.75}}),
    ],
)
async def test_a_limit_lowered_below_what_runs_lets_nobody_in_until_enough_has_ended(
    before: dict[str, object], after: dict[str, object], store: Store
) -> None:
    held = [await granted(store, replace(REQUEST, **before)) for _ in range(3)]
    asking = replace(REQUEST, **after)

    for lease in held:
        await refused(store, asking)
        store.release(lease)

    await granted(store, asking)


async def test_a_request_without_a_cluster_counts_for_its_tenant_alone(store: Store) -> None:
    passing = LeaseRequest(tenant="acme", tier="premium", tenant_limit=1)

    lease = await granted(store, passing)

    assert (await refused(store, passing)).scope is Scope.TENANT
    assert store.in_flight(Scope.TIER, "premium") == 0
    store.release(lease)
    assert store.in_flight(Scope.TENANT, "acme") == 0


async def test_releasing_twice_changes_nothing_and_is_told_once(store: Store) -> None:
    told: list[Lease] = []
    store.on_release(told.append)
    lease, other = await granted(store), await granted(store)

    store.release(lease)
    store.release(lease)

    assert told == [lease]
    assert store.usage("best") == Usage(requests=1, tokens=100)
    store.release(other)
    assert told == [lease, other]


async def test_every_listener_hears_of_a_release_when_the_slot_is_free(store: Store) -> None:
    seen: list[int] = []
    store.on_release(lambda _: seen.append(store.usage("best").requests))
    store.on_release(lambda _: seen.append(store.usage("best").requests))

    store.release(await granted(store))

    assert seen == [0, 0]


async def test_questions_asked_at_once_never_get_more_than_there_is(store: Store) -> None:
    request = replace(REQUEST, cluster_limit=7)

    answers = await asyncio.gather(*(ask(store, request) for _ in range(50)))

    leases = [answer for answer in answers if isinstance(answer, Lease)]
    assert len(leases) == 7
    assert len({lease.id for lease in leases}) == 7
    for lease in (*leases, *leases):
        store.release(lease)
    assert store.usage("best") == Usage(requests=0, tokens=0)
