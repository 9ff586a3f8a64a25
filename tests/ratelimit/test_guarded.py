"""What holds while Redis gives no answer: the policy of each limit, and what a killed Redis costs."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import pytest

from headgate.errors import StoreUnavailable
from headgate.policy.model import OnStoreFailure
from headgate.redis.connection import connect
from headgate.redis.settings import RedisSettings
from ratelimit.charges import Charge, Charging, Role, Tally
from ratelimit.guarded import GuardedStore
from ratelimit.limits import Algorithm
from ratelimit.memory import MemoryStore
from ratelimit.redis_store import RedisStore

YEAR = 365 * 86_400
PATIENCE_SECONDS = 20.0


class RedisServer(Protocol):
    """The fixture `redis_server`."""

    port: int

    def start(self) -> None: ...

    def kill(self) -> None: ...


@dataclass
class Remote:
    """A store that fails, or stalls, when told to."""

    fails: bool = False
    stalls: bool = False
    calls: int = 0

    async def charge(self, charges: Sequence[Charge], charging: Charging = Charging.EACH) -> tuple[Tally, ...]:
        self.calls += 1
        await self._answer()
        return tuple(Tally(False, 1, 1, 1.0) for _ in charges)

    async def ping(self) -> None:
        await self._answer()

    async def close(self) -> None:
        pass

    async def _answer(self) -> None:
        if self.fails:
            raise StoreUnavailable("refused")
        if self.stalls:
            await asyncio.Event().wait()


def hit(policy: OnStoreFailure | None, hits: int = 1, **rest: object) -> Charge:
    limit: dict[str, object] = {
        "key": "k",
        "limit": 4,
        "window_seconds": YEAR,
        "hits": hits,
        "on_store_failure": policy,
    }
    return Charge(**(limit | rest))  # type: ignore[arg-type]


def guard(remote: Remote, **rest: object) -> GuardedStore:
    options: dict[str, object] = {"deadline_seconds": 5.0} | rest
    return GuardedStore(remote, MemoryStore(time.time), **options)  # type: ignore[arg-type]


async def over(store: GuardedStore, *charges: Charge) -> list[bool]:
    return [tally.is_over for tally in await store.charge(charges)]


async def test_without_a_policy_the_call_fails() -> None:
    with pytest.raises(StoreUnavailable):
        await guard(Remote(fails=True)).charge([hit(None)])


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        (OnStoreFailure.OPEN, [False] * 9),
        (OnStoreFailure.CLOSED, [True] * 9),
        (OnStoreFailure.LOCAL, [False] * 2 + [True] * 7),
    ],
)
async def test_the_policy_of_a_limit_holds_while_the_store_is_away(
    policy: OnStoreFailure, expected: list[bool]
) -> None:
    store = guard(Remote(fails=True), local_share=0.5)

    assert [(await over(store, hit(policy)))[0] for _ in range(9)] == expected


async def test_a_limits_own_policy_and_share_beat_the_processs() -> None:
    store = guard(Remote(fails=True), default=OnStoreFailure.CLOSED, local_share=0.5)
    own = hit(OnStoreFailure.LOCAL, local_share=1.0)

    assert [(await over(store, own))[0] for _ in range(6)] == [False] * 4 + [True] * 2
    assert await over(store, hit(None), hit(OnStoreFailure.OPEN)) == [True, False]


async def test_as_much_remains_of_the_whole_limit_as_of_the_local_share() -> None:
    (tally,) = await guard(Remote(fails=True), local_share=0.5).charge([hit(OnStoreFailure.LOCAL)])

    assert tally.count == 3


async def test_a_request_refused_by_a_closed_limit_takes_nothing_locally() -> None:
    store = guard(Remote(fails=True))

    await store.charge([hit(OnStoreFailure.CLOSED), hit(OnStoreFailure.LOCAL)])

    (tally,) = await store.charge([hit(OnStoreFailure.LOCAL, 0)])
    assert tally.count == 0


async def test_a_closed_limit_that_only_advises_refuses_nothing_else() -> None:
    store = guard(Remote(fails=True))

    await store.charge([hit(OnStoreFailure.CLOSED, role=Role.ADVISORY), hit(OnStoreFailure.LOCAL)])

    (tally,) = await store.charge([hit(OnStoreFailure.LOCAL, 0)])
    assert tally.count == 1


async def test_giving_back_is_never_refused() -> None:
    assert await over(guard(Remote(fails=True)), hit(OnStoreFailure.CLOSED, -1)) == [False]


async def test_a_store_that_stalls_costs_the_deadline_and_soon_nothing() -> None:
    remote = Remote(stalls=True)
    store = guard(remote, deadline_seconds=0.01)

    for _ in range(50):
        assert await over(store, hit(OnStoreFailure.OPEN)) == [False]

    assert remote.calls == 3


async def test_a_probe_finds_the_store_again_without_any_request() -> None:
    remote = Remote(fails=True)
    store = guard(remote, deadline_seconds=0.01)
    assert not store.is_answering
    for _ in range(9):
        await store.charge([hit(OnStoreFailure.OPEN)])
    assert remote.calls == 3

    remote.fails = False
    await store.probe()

    assert store.is_answering
    await store.charge([hit(OnStoreFailure.OPEN)])
    assert remote.calls == 4


async def test_a_place_taken_while_the_store_was_away_is_given_back_afterwards() -> None:
    remote = Remote(fails=True)
    store = guard(remote)
    job = hit(OnStoreFailure.LOCAL, algorithm=Algorithm.CONCURRENCY, limit=1, lease_id="r1")
    await store.charge([job])
    remote.fails = False
    await store.charge([replace(job, hits=-1)])
    remote.fails = True

    assert await over(store, replace(job, lease_id="r2")) == [False]


class TestKilledRedis:
    """A real Redis, killed and started again while requests go on."""

    @pytest.fixture
    async def store(self, redis_server: RedisServer) -> AsyncIterator[GuardedStore]:
        remote = RedisStore(connect(RedisSettings(addresses=(("127.0.0.1", redis_server.port),))), clock=lambda: 1e6)
        store = GuardedStore(remote, MemoryStore(lambda: 1e6), deadline_seconds=2.0, local_share=0.5)
        yield store
        await store.close()

    async def test_serving_begins_before_redis_does(self, store: GuardedStore, redis_server: RedisServer) -> None:
        assert await over(store, hit(OnStoreFailure.OPEN)) == [False]
        assert not store.is_answering

        redis_server.start()
        await store.probe()

        (tally,) = await store.charge([hit(None)])
        assert (tally.count, store.is_answering) == (1, True)

    @pytest.mark.parametrize(
        ("policy", "admitted_meanwhile"),
        [(OnStoreFailure.OPEN, None), (OnStoreFailure.CLOSED, 0), (OnStoreFailure.LOCAL, 50)],
    )
    async def test_under_load_every_call_is_answered_and_the_policy_holds_until_it_is_back(
        self, store: GuardedStore, redis_server: RedisServer, policy: OnStoreFailure, admitted_meanwhile: int | None
    ) -> None:
        redis_server.start()
        charge = hit(policy, limit=100)
        load = Load(store, charge)
        await load.run_until(lambda: load.admitted >= 30)
        counted = (await store.charge([replace(charge, hits=0)]))[0].count
        assert counted == load.admitted == 30

        redis_server.kill()
        before = load.admitted
        await load.run_until(lambda: load.asked >= 230)
        meanwhile = load.admitted - before
        assert meanwhile == (200 if admitted_meanwhile is None else admitted_meanwhile)

        redis_server.start()
        await store.probe()
        before, asked = load.admitted, load.asked
        await load.run_until(lambda: load.asked >= asked + 40)

        # The new Redis is empty: all it has counted is what it was asked since, once.
        assert load.admitted - before == 40
        assert (await store.charge([replace(charge, hits=0)]))[0].count == 40

    async def test_calls_in_flight_when_it_dies_are_answered_by_the_policy(
        self, store: GuardedStore, redis_server: RedisServer
    ) -> None:
        redis_server.start()
        await store.charge([hit(None)])
        calls = [asyncio.create_task(store.charge([hit(OnStoreFailure.OPEN)])) for _ in range(200)]
        await asyncio.sleep(0)
        redis_server.kill()

        answers = await asyncio.wait_for(asyncio.gather(*calls), PATIENCE_SECONDS)

        assert len(answers) == 200


@dataclass
class Load:
    """Requests one after the other over ten connections' worth of callers."""

    store: GuardedStore
    charge: Charge
    asked: int = 0
    admitted: int = 0

    async def run_until(self, is_enough: Callable[[], bool]) -> None:
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not is_enough():
                tallies = await asyncio.gather(*(self.store.charge([self.charge]) for _ in range(10)))
                self.asked += len(tallies)
                self.admitted += sum(not tally.is_over for (tally,) in tallies)
