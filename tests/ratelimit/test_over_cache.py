from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from ratelimit.charges import Charge, Charging, Role, Tally
from ratelimit.limits import Algorithm
from ratelimit.memory import MemoryStore
from ratelimit.over_cache import OverLimitCache


@dataclass
class Bench:
    """The cache before a store that notes what it is asked."""

    size_bytes: int = 10_000
    now: float = 1_000_000.0
    asked: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.memory = MemoryStore(lambda: self.now)
        self.cache = OverLimitCache(self, lambda: self.now, self.size_bytes)

    async def charge(self, charges: Sequence[Charge], charging: Charging = Charging.EACH) -> tuple[Tally, ...]:
        self.asked += [f"{charge.key}{charge.hits:+}" for charge in charges]
        return self.memory.charge_now(charges, charging)

    async def close(self) -> None:
        pass

    async def over(self, *charges: Charge, charging: Charging = Charging.EACH) -> list[bool]:
        self.asked.clear()
        return [tally.is_over for tally in await self.cache.charge(charges, charging)]


def hit(hits: int = 1, key: str = "k", limit: int = 1, role: Role = Role.ENFORCED) -> Charge:
    return Charge(key=key, limit=limit, window_seconds=60, hits=hits, role=role)


async def test_what_is_over_is_not_asked_again_until_its_window_ends() -> None:
    bench = Bench()
    assert [(await bench.over(hit()))[0] for _ in range(3)] == [False, True, True]
    assert bench.asked == []

    bench.now += 20

    assert await bench.over(hit()) == [False]
    assert bench.asked == ["k+1"]


async def test_hits_given_back_are_seen_at_once() -> None:
    bench = Bench()
    await bench.over(hit(5))
    await bench.over(hit(-5))

    assert await bench.over(hit()) == [False]


async def test_a_raised_limit_is_seen_at_once() -> None:
    bench = Bench()
    await bench.over(hit(5))

    assert await bench.over(hit(limit=9)) == [False]


async def test_a_refused_hit_that_was_not_counted_is_not_remembered() -> None:
    bench = Bench()
    charge = replace(hit(3), limit=2, counts_rejected=False)
    assert await bench.over(charge) == [True]

    assert await bench.over(replace(charge, hits=1)) == [False]


async def test_the_others_of_a_refused_request_only_look_where_they_would_not_stay() -> None:
    bench = Bench()
    await bench.over(hit(5))
    other = hit(key="o", limit=9)
    job = Charge(key="j", limit=9, window_seconds=60, hits=1, algorithm=Algorithm.CONCURRENCY, lease_id="r")

    await bench.over(hit(), other, job)
    assert bench.asked == ["o+1", "j+0"]
    await bench.over(hit(), other, charging=Charging.SPARE_OTHERS)
    assert bench.asked == ["o+0"]
    await bench.over(hit(), other, charging=Charging.ALL_OR_NOTHING)
    assert bench.asked == ["o+0"]
    await bench.over(hit(role=Role.ADVISORY), other, job, charging=Charging.ALL_OR_NOTHING)
    assert bench.asked == ["o+1", "j+1"]


async def test_no_more_is_remembered_than_there_is_room_for() -> None:
    bench = Bench(size_bytes=1000)
    for at in range(50):
        await bench.over(hit(2, key=str(at)))

    await bench.over(*(hit(key=str(at)) for at in range(50)))

    assert 45 < len(bench.asked) < 50
    assert bench.asked[0] == "0+1"
