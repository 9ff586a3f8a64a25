"""One contract for every store: what a charge does, for all algorithms, in memory and in a real Redis."""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pytest
import redis.asyncio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from headgate.errors import StoreUnavailable
from headgate.redis.connection import connect
from headgate.redis.settings import RedisSettings
from ratelimit.charges import COUNT_MAX, Charge, Charging, Role, Store, Tally
from ratelimit.limits import Algorithm
from ratelimit.memory import MemoryStore
from ratelimit.redis_store import RedisStore

T = 1_000_000.0
"""40 seconds into a minute."""


@dataclass
class Bench:
    """A store and the moment it believes in."""

    store: Store
    now: float = T

    async def charge(self, *charges: Charge, charging: Charging = Charging.EACH) -> tuple[Tally, ...]:
        return await self.store.charge(charges, charging)

    async def over(self, *charges: Charge, charging: Charging = Charging.EACH) -> list[bool]:
        return [tally.is_over for tally in await self.charge(*charges, charging=charging)]

    async def count(self, charge: Charge) -> int:
        (tally,) = await self.charge(replace(charge, hits=0))
        return tally.count

    async def admitted(self, charge: Charge, times: int) -> int:
        return [(await self.over(charge))[0] for _ in range(times)].count(False)


@pytest.fixture(params=["memory", "redis"])
async def bench(request: pytest.FixtureRequest, redis_port: int, redis_is_empty: None) -> AsyncIterator[Bench]:
    moments: list[Bench] = []

    def clock() -> float:
        return moments[0].now

    store = (
        MemoryStore(clock)
        if request.param == "memory"
        else RedisStore(connect(local_redis(redis_port)), clock=clock, jitter_seconds=1_000_000_000)
    )
    moments.append(Bench(store))
    yield moments[0]
    await store.close()


def local_redis(port: int) -> RedisSettings:
    return RedisSettings(addresses=(("127.0.0.1", port),))


def fixed(
    hits: int = 1, *, key: str = "k", limit: int = 3, window_seconds: int = 60, role: Role = Role.ENFORCED
) -> Charge:
    return Charge(key=key, limit=limit, window_seconds=window_seconds, hits=hits, role=role)


def sliding(hits: int = 1, *, key: str = "s", limit: int = 10) -> Charge:
    return replace(fixed(hits, key=key, limit=limit), algorithm=Algorithm.SLIDING_WINDOW, counts_rejected=False)


def bucket(hits: int = 1, *, key: str = "b", limit: int = 60, burst: int = 5) -> Charge:
    return replace(fixed(hits, key=key, limit=limit), algorithm=Algorithm.TOKEN_BUCKET, burst=burst)


def lease(request_id: str, hits: int = 1, *, key: str = "l", limit: int = 2, lease_seconds: int = 30) -> Charge:
    return replace(
        fixed(hits, key=key, limit=limit, window_seconds=lease_seconds),
        algorithm=Algorithm.CONCURRENCY,
        lease_id=request_id,
        counts_rejected=False,
    )


class TestFixedWindow:
    """The reference's algorithm."""

    async def test_the_hit_after_the_limit_is_over_and_counts_all_the_same(self, bench: Bench) -> None:
        tallies = [(await bench.charge(fixed()))[0] for _ in range(5)]

        assert [(tally.is_over, tally.count) for tally in tallies] == [
            (False, 1), (False, 2), (False, 3), (True, 4), (True, 5)
        ]  # fmt: skip
        assert tallies[0].reset_seconds == 20.0

    async def test_a_charge_for_one_window_changes_no_other(self, bench: Bench) -> None:
        start = int(T) // 60 * 60
        await bench.charge(fixed(2, limit=9))

        await bench.charge(replace(fixed(-1, limit=9), window_start=start))
        assert await bench.count(fixed(limit=9)) == 1
        await bench.charge(replace(fixed(-1, limit=9), window_start=start - 60))
        assert await bench.count(fixed(limit=9)) == 1

        bench.now += 60
        await bench.charge(fixed(3, limit=9))
        await bench.charge(replace(fixed(-2, limit=9), window_start=start))
        assert await bench.count(fixed(limit=9)) == 3

    async def test_a_limit_may_leave_refused_hits_uncounted(self, bench: Bench) -> None:
        charge = replace(fixed(), counts_rejected=False)

        assert await bench.admitted(charge, 6) == 3
        assert await bench.count(charge) == 3
        assert await bench.over(replace(charge, hits=-1), charge) == [False, False]

    async def test_what_is_given_back_can_be_taken_again_and_never_falls_below_zero(self, bench: Bench) -> None:
        await bench.charge(fixed(9))

        assert await bench.over(fixed(-100)) == [False]
        assert await bench.count(fixed()) == 0
        assert await bench.admitted(fixed(), 9) == 3

    async def test_hits_without_bound_are_refused_and_stop_counting_at_a_bound(self, bench: Bench) -> None:
        assert await bench.over(fixed(2**64 - 1)) == [True]
        assert await bench.over(fixed(2**64 - 1)) == [True]
        assert await bench.count(fixed()) == COUNT_MAX

    async def test_a_custom_window_ends_when_its_length_says(self, bench: Bench) -> None:
        charge = fixed(window_seconds=30)
        assert await bench.admitted(charge, 5) == 3
        bench.now += 19.9
        assert await bench.admitted(charge, 5) == 0
        bench.now += 0.1
        assert await bench.admitted(charge, 5) == 3


class TestSlidingWindow:
    """The previous window counts as far as it reaches into the last minute."""

    async def test_a_burst_before_the_turn_of_a_window_leaves_no_room_for_another_after_it(self, bench: Bench) -> None:
        bench.now = T + 19
        assert await bench.admitted(sliding(), 20) == 10
        bench.now += 2
        assert await bench.admitted(sliding(), 20) == 0

    async def test_room_comes_back_bit_by_bit(self, bench: Bench) -> None:
        await bench.admitted(sliding(), 10)
        bench.now = T + 20 + 30
        assert await bench.admitted(sliding(), 20) == 5
        bench.now = T + 20 + 60
        assert await bench.admitted(sliding(), 20) == 5

    async def test_the_wait_it_names_is_enough_and_not_a_moment_too_long(self, bench: Bench) -> None:
        await bench.admitted(sliding(), 10)
        (refused,) = await bench.charge(sliding(3))
        assert refused.is_over
        assert refused.reset_seconds is not None

        bench.now = T + refused.reset_seconds - 0.01
        assert await bench.over(sliding(3)) == [True]
        bench.now = T + refused.reset_seconds + 0.001
        assert await bench.over(sliding(3)) == [False]

    async def test_after_two_quiet_windows_nothing_counts_any_more(self, bench: Bench) -> None:
        await bench.admitted(sliding(), 10)
        bench.now += 120

        assert await bench.count(sliding()) == 0


class TestTokenBucket:
    """GCRA: a burst at once, then an even flow."""

    async def test_a_burst_passes_at_once_and_then_one_per_interval(self, bench: Bench) -> None:
        assert await bench.admitted(bucket(), 9) == 5
        bench.now += 0.9
        assert await bench.admitted(bucket(), 9) == 0
        bench.now += 0.1
        assert await bench.admitted(bucket(), 9) == 1
        bench.now += 3
        assert await bench.admitted(bucket(), 9) == 3
        bench.now += 3600
        assert await bench.admitted(bucket(), 9) == 5

    async def test_it_says_how_much_is_taken_and_when_more_will_pass(self, bench: Bench) -> None:
        (tally,) = await bench.charge(bucket(2))
        assert (tally.count, tally.reset_seconds) == (2, 2.0)

        (refused,) = await bench.charge(bucket(5))
        assert (refused.is_over, refused.count, refused.reset_seconds) == (True, 2, 2.0)

    async def test_what_is_given_back_never_overfills_it(self, bench: Bench) -> None:
        await bench.charge(bucket(4))
        await bench.charge(bucket(-100))

        assert await bench.admitted(bucket(), 9) == 5

    async def test_a_rate_of_zero_lets_nothing_pass(self, bench: Bench) -> None:
        assert await bench.admitted(bucket(limit=0, burst=0), 3) == 0


class TestConcurrency:
    """Leases by request id."""

    async def test_only_as_many_as_the_limit_are_in_flight_at_once(self, bench: Bench) -> None:
        assert await bench.over(lease("r1")) == [False]
        assert await bench.over(lease("r2")) == [False]
        assert await bench.over(lease("r3")) == [True]

        await bench.charge(lease("r1", -1))

        assert await bench.over(lease("r3")) == [False]
        assert await bench.count(lease("r9")) == 2

    async def test_a_release_by_a_request_that_was_refused_changes_nothing(self, bench: Bench) -> None:
        await bench.charge(lease("r1"))
        await bench.charge(lease("r2"))
        assert await bench.over(lease("r3")) == [True]

        await bench.charge(lease("r3", -1))
        await bench.charge(lease("never-seen", -1))

        assert await bench.count(lease("r9")) == 2
        assert await bench.over(lease("r4")) == [True]

    async def test_a_release_that_comes_twice_counts_once(self, bench: Bench) -> None:
        await bench.charge(lease("r1"))
        await bench.charge(lease("r2"))
        await bench.charge(lease("r1", -1))
        await bench.charge(lease("r1", -1))

        assert await bench.count(lease("r9")) == 1

    async def test_a_request_that_asks_twice_holds_one_lease(self, bench: Bench) -> None:
        assert await bench.over(lease("r1"), lease("r1")) == [False, False]
        assert await bench.over(lease("r1")) == [False]
        assert await bench.count(lease("r9")) == 1

    async def test_a_lease_that_is_never_released_ends_by_itself(self, bench: Bench) -> None:
        await bench.charge(lease("r1"))
        bench.now += 10
        await bench.charge(lease("r2"))
        bench.now += 19.9
        assert await bench.over(lease("r3")) == [True]
        bench.now += 0.2
        assert await bench.over(lease("r3")) == [False]
        assert await bench.over(lease("r4")) == [True]

    async def test_a_request_that_another_limit_refuses_holds_no_lease(self, bench: Bench) -> None:
        assert await bench.over(lease("r1"), fixed(9)) == [False, True]
        assert await bench.count(lease("r9")) == 0

    async def test_a_lease_held_already_survives_a_refusal_of_the_same_request(self, bench: Bench) -> None:
        await bench.charge(lease("r1"))
        await bench.charge(lease("r1"), fixed(9))

        assert await bench.count(lease("r9")) == 1

    async def test_a_refusal_that_is_only_advice_takes_no_lease_away(self, bench: Bench) -> None:
        await bench.charge(lease("r1"), fixed(9, role=Role.ADVISORY))

        assert await bench.count(lease("r9")) == 1

    @pytest.mark.parametrize(("quota_over", "held"), [(1, 1), (2, 0)], ids=["one_of_two_quotas", "both_quotas"])
    async def test_quotas_refuse_together_or_not_at_all(self, bench: Bench, quota_over: int, held: int) -> None:
        quotas = [fixed(9 if at < quota_over else 1, key=f"q{at}", role=Role.QUOTA) for at in range(2)]

        await bench.charge(lease("r1"), *quotas)

        assert await bench.count(lease("r9")) == held


class TestCharging:
    """Which charges of a request stay when one is over."""

    @pytest.mark.parametrize(
        ("charging", "counts"),
        [(Charging.EACH, [1, 9]), (Charging.SPARE_OTHERS, [0, 9]), (Charging.ALL_OR_NOTHING, [0, 0])],
    )
    async def test_a_refusal_leaves_of_the_others_what_the_mode_says(
        self, bench: Bench, charging: Charging, counts: list[int]
    ) -> None:
        one, many = fixed(1, key="a"), fixed(9, key="b")

        tallies = await bench.charge(one, many, charging=charging)

        assert [(tally.is_over, tally.attempted) for tally in tallies] == [(False, 1), (True, 9)]
        assert [tally.count for tally in tallies] == counts
        assert [await bench.count(one), await bench.count(many)] == counts

    async def test_what_a_refused_request_gives_back_stays_given_back(self, bench: Bench) -> None:
        await bench.charge(fixed(3, key="a"))
        await bench.charge(fixed(-2, key="a"), fixed(9, key="b"), charging=Charging.ALL_OR_NOTHING)

        assert await bench.count(fixed(key="a")) == 1

    async def test_a_refused_request_gives_back_in_every_algorithm(self, bench: Bench) -> None:
        charges = [fixed(), sliding(), bucket(), lease("r1"), fixed(9, key="full")]

        await bench.charge(*charges, charging=Charging.ALL_OR_NOTHING)

        assert [await bench.count(charge) for charge in charges] == [0] * 5


async def test_a_key_of_any_length_and_any_text_counts_alone(bench: Bench) -> None:
    for key in ("x" * 100_000 + "a", "x" * 100_000 + "b", "ключ \n{a}\x00", ""):
        assert await bench.admitted(fixed(key=key), 5) == 3


def by_window(charge: Charge) -> Charge:
    # The reference's keys name a window's start and not its length: a minute and its first second are one counter.
    return replace(charge, key=f"{charge.key}{charge.window_seconds}")


KEYS = st.sampled_from("ab")
HITS = st.integers(-3, 4)
CHARGES = st.one_of(
    st.builds(
        fixed,
        HITS,
        key=KEYS,
        limit=st.integers(0, 5),
        window_seconds=st.sampled_from((1, 60)),
        role=st.sampled_from(Role),
    ).map(by_window),
    st.builds(lambda charge: replace(charge, counts_rejected=False), st.builds(fixed, HITS, key=st.just("c"))),
    st.builds(sliding, HITS, key=KEYS, limit=st.just(7)),
    st.builds(bucket, HITS, key=KEYS, limit=st.just(70), burst=st.just(5)),
    st.builds(lease, st.sampled_from(["r1", "r2", "r3"]), st.integers(-1, 1), key=KEYS),
)
REQUESTS = st.lists(
    st.tuples(st.integers(0, 40_000), st.lists(CHARGES, min_size=1, max_size=4), st.sampled_from(Charging)), max_size=25
)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(requests=REQUESTS)
async def test_redis_and_memory_never_differ(
    requests: Sequence[tuple[int, Sequence[Charge], Charging]], redis_port: int
) -> None:
    async with redis.asyncio.Redis(port=redis_port) as client:
        await client.flushall()
    now = [T]
    memory = MemoryStore(lambda: now[0])
    shared = RedisStore(connect(local_redis(redis_port)), clock=lambda: now[0], jitter_seconds=1_000_000_000)
    try:
        for wait_milliseconds, charges, charging in requests:
            now[0] += wait_milliseconds / 1000
            expected = await memory.charge(charges, charging)
            found = await shared.charge(charges, charging)
            assert [rounded(tally) for tally in found] == [rounded(tally) for tally in expected]
    finally:
        await shared.close()


def rounded(tally: Tally) -> tuple[object, ...]:
    reset = None if tally.reset_seconds is None else round(tally.reset_seconds, 4)
    return tally.is_over, tally.count, tally.attempted, reset


class TestRedis:
    """What only Redis has: its own time, the reference's keys, and what is there when nobody asks any more."""

    @pytest.fixture
    async def store(self, redis_port: int, redis_is_empty: None) -> AsyncIterator[RedisStore]:
        store = RedisStore(connect(local_redis(redis_port)), prefix="p:")
        yield store
        await store.close()

    @pytest.fixture
    async def client(self, redis_port: int) -> AsyncIterator[redis.asyncio.Redis]:
        async with redis.asyncio.Redis(port=redis_port, decode_responses=True) as client:
            yield client

    async def test_a_fixed_windows_key_is_the_references_and_starts_by_redis_own_time(
        self, store: RedisStore, client: redis.asyncio.Redis
    ) -> None:
        year = 365 * 86_400
        seconds, _ = await client.time()

        await store.charge([fixed(2, key="d_a_b", window_seconds=year)])

        assert await client.get(f"p:d_a_b_{seconds // year * year}") == "2"
        assert 0 < await client.ttl(f"p:d_a_b_{seconds // year * year}") <= year

    async def test_a_count_begun_by_the_reference_goes_on(self, store: RedisStore, client: redis.asyncio.Redis) -> None:
        year = 365 * 86_400
        seconds, _ = await client.time()
        await client.incrby(f"p:d_a_b_{seconds // year * year}", 3)

        (tally,) = await store.charge([fixed(key="d_a_b", window_seconds=year)])

        assert (tally.is_over, tally.count) == (True, 4)

    async def test_no_key_is_without_an_end(self, store: RedisStore, client: redis.asyncio.Redis) -> None:
        await store.charge([fixed(), sliding(), bucket(), lease("r1"), fixed(key="again", window_seconds=1)])

        keys = [key async for key in client.scan_iter()]
        assert len(keys) == 5
        assert all([await client.pttl(key) > 0 for key in keys])

    async def test_a_script_that_redis_forgot_is_sent_again_and_charges_once(
        self, store: RedisStore, client: redis.asyncio.Redis
    ) -> None:
        await store.charge([fixed()])
        await client.script_flush()

        (tally,) = await store.charge([fixed()])

        assert tally.count == 2

    async def test_a_key_of_another_type_is_an_unavailable_store_and_not_a_crash(
        self, store: RedisStore, client: redis.asyncio.Redis
    ) -> None:
        await client.set("p:headgate:concurrency:30:l", "no set")

        with pytest.raises(StoreUnavailable, match="WRONGTYPE"):
            await store.charge([lease("r1")])

    async def test_limits_per_second_can_have_a_redis_of_their_own_and_refuse_together(
        self, redis_port: int, redis_server: Any, redis_is_empty: None
    ) -> None:
        redis_server.start()
        own = connect(local_redis(redis_server.port))
        store = RedisStore(connect(local_redis(redis_port)), per_second=own, clock=lambda: T)
        second, minute, job = fixed(key="s", window_seconds=1), fixed(9, key="m"), lease("r1")

        tallies = await store.charge([second, minute, job], Charging.ALL_OR_NOTHING)

        assert [(tally.is_over, tally.count) for tally in tallies] == [(False, 0), (True, 0), (False, 0)]
        assert [tally.count for tally in await store.charge([second, replace(minute, hits=1), job])] == [1, 1, 1]
        assert await own.dbsize() == 1
        await store.close()
