from collections import defaultdict
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ratelimit.charges import Charge, Charging, Role, Tally
from ratelimit.memory import MemoryStore

T = 1_000_000.0
"""40 seconds into a minute."""


def hit(hits: int = 1, *, key: str = "k", limit: int = 3, window_seconds: int = 60, is_enforced: bool = True) -> Charge:
    role = Role.ENFORCED if is_enforced else Role.ADVISORY
    return Charge(key=key, limit=limit, window_seconds=window_seconds, hits=hits, role=role)


class FixedWindows:
    """A store in memory at moments of the test's choosing."""

    def __init__(self) -> None:
        self.now = T
        self.store = MemoryStore(lambda: self.now)

    def __len__(self) -> int:
        return len(self.store)

    def charge(self, charges: Sequence[Charge], now: float, *, all_or_nothing: bool = False) -> tuple[Tally, ...]:
        self.now = now
        return self.store.charge_now(charges, Charging.ALL_OR_NOTHING if all_or_nothing else Charging.EACH)

    def drop_expired(self, now: float, *, at_most: int) -> int:
        self.now = now
        return self.store.forget(at_most)


def charge_one(windows: FixedWindows, charge: Charge, now: float = T) -> tuple[bool, int]:
    (tally,) = windows.charge((charge,), now)
    return tally.is_over, tally.count


def test_the_hit_after_the_limit_is_over_and_counts_all_the_same() -> None:
    windows = FixedWindows()

    assert [charge_one(windows, hit()) for _ in range(5)] == [
        (False, 1),
        (False, 2),
        (False, 3),
        (True, 4),
        (True, 5),
    ]


def test_hits_that_cross_the_limit_are_over_as_a_whole_and_count_as_a_whole() -> None:
    windows = FixedWindows()
    charge_one(windows, hit(2))

    assert charge_one(windows, hit(5)) == (True, 7)


def test_zero_hits_only_ask_and_are_over_beyond_the_limit_not_at_it() -> None:
    windows = FixedWindows()
    charge_one(windows, hit(3))
    assert charge_one(windows, hit(0)) == (False, 3)

    charge_one(windows, hit(1))
    assert charge_one(windows, hit(0)) == (True, 4)


def test_asking_about_an_unknown_key_keeps_nothing_in_memory() -> None:
    windows = FixedWindows()
    charge_one(windows, hit(0))

    assert len(windows) == 0


def test_a_limit_of_zero_is_over_at_once() -> None:
    assert charge_one(FixedWindows(), hit(limit=0)) == (True, 1)


def test_negative_hits_give_back_never_fall_below_zero_and_are_never_over() -> None:
    windows = FixedWindows()
    charge_one(windows, hit(9))

    assert charge_one(windows, hit(-2)) == (False, 7)
    assert charge_one(windows, hit(-100)) == (False, 0)


def test_windows_are_aligned_to_the_epoch_and_say_when_they_end() -> None:
    windows = FixedWindows()

    tallies = windows.charge((hit(window_seconds=1), hit(), hit(window_seconds=3600)), T + 0.25)

    assert [tally.reset_seconds for tally in tallies] == [0.75, 19.75, 799.75]


def test_a_new_window_starts_from_zero_at_its_first_moment() -> None:
    windows = FixedWindows()
    charge_one(windows, hit(3))

    assert charge_one(windows, hit(), T + 19.999) == (True, 4)
    assert charge_one(windows, hit(), T + 20) == (False, 1)


def test_the_same_key_counts_apart_in_windows_of_different_length() -> None:
    windows = FixedWindows()
    charge_one(windows, hit(window_seconds=60))

    assert charge_one(windows, hit(window_seconds=3600)) == (False, 1)


def test_the_same_key_twice_in_a_request_counts_twice() -> None:
    tallies = FixedWindows().charge((hit(limit=1), hit(limit=1)), T)

    assert tallies == (Tally(False, 1, 1, 20.0), Tally(True, 2, 2, 20.0))


@pytest.mark.parametrize("back_seconds", [1, 41, 59])
def test_a_clock_set_back_by_less_than_a_window_grants_no_second_budget(back_seconds: int) -> None:
    windows = FixedWindows()
    charge_one(windows, hit(3))

    assert charge_one(windows, hit(), T - back_seconds) == (True, 4)


def test_a_clock_that_was_far_ahead_does_not_hold_its_window_open() -> None:
    windows = FixedWindows()
    charge_one(windows, hit(3), T + 1_000_000)

    assert charge_one(windows, hit(), T) == (False, 1)


class TestAllOrNothing:
    """A request that one of its limits refuses costs none of the others."""

    def test_a_refused_request_is_charged_nowhere_and_sees_what_stands(self) -> None:
        windows = FixedWindows()
        windows.charge((hit(key="requests"), hit(2, key="tokens")), T, all_or_nothing=True)

        refused = windows.charge((hit(key="requests"), hit(2, key="tokens")), T, all_or_nothing=True)

        assert refused == (Tally(False, 1, 2, 20.0), Tally(True, 2, 4, 20.0))
        assert charge_one(windows, hit(0, key="requests")) == (False, 1)

    def test_an_admitted_request_is_charged_everywhere(self) -> None:
        windows = FixedWindows()

        admitted = windows.charge((hit(key="requests"), hit(2, key="tokens")), T, all_or_nothing=True)

        assert [tally.count for tally in admitted] == [1, 2]

    def test_a_refusal_by_one_key_twice_gives_back_both_hits(self) -> None:
        windows = FixedWindows()
        charge_one(windows, hit(limit=2))

        refused = windows.charge((hit(limit=2), hit(limit=2)), T, all_or_nothing=True)

        assert [(tally.is_over, tally.count) for tally in refused] == [(False, 1), (True, 1)]

    def test_a_refused_first_request_leaves_nothing_in_memory(self) -> None:
        windows = FixedWindows()
        windows.charge((hit(key="a"), hit(9, key="b")), T, all_or_nothing=True)

        assert len(windows) == 0

    def test_a_limit_that_is_not_enforced_holds_nothing_back(self) -> None:
        windows = FixedWindows()

        tallies = windows.charge((hit(key="a"), hit(9, key="b", is_enforced=False)), T, all_or_nothing=True)

        assert [(tally.is_over, tally.count) for tally in tallies] == [(False, 1), (True, 9)]


class TestMemory:
    """What a window held is freed once it has ended, a little with every charge."""

    def test_ended_counters_are_gone_before_as_many_new_ones_have_come(self) -> None:
        windows = FixedWindows()
        for index in range(1000):
            charge_one(windows, hit(key=f"old-{index}"))

        for index in range(600):
            charge_one(windows, hit(key=f"new-{index}"), T + 60)

        assert len(windows) == 600

    def test_memory_never_holds_more_than_twice_the_keys_of_a_window(self) -> None:
        windows = FixedWindows()
        most = 0
        for second in range(20):
            for index in range(100):
                charge_one(windows, hit(key=f"{second}-{index}", window_seconds=1), T + second)
                most = max(most, len(windows))

        assert most <= 200

    def test_a_window_that_nobody_asks_for_any_more_is_freed_by_charges_to_others(self) -> None:
        windows = FixedWindows()
        for index in range(100):
            charge_one(windows, hit(key=f"old-{index}", window_seconds=1))

        for _ in range(50):
            charge_one(windows, hit(), T + 1)

        assert len(windows) == 1

    def test_an_idle_process_can_free_all_that_has_ended(self) -> None:
        windows = FixedWindows()
        for index in range(100):
            charge_one(windows, hit(key=str(index)))

        assert windows.drop_expired(T + 19, at_most=1000) == 0
        assert windows.drop_expired(T + 20, at_most=30) == 30
        assert windows.drop_expired(T + 20, at_most=1000) == 70
        assert len(windows) == 0

    def test_a_long_key_takes_no_more_memory_than_a_short_one_and_still_counts_alone(self) -> None:
        windows = FixedWindows()
        for last in "abb":
            is_over, count = charge_one(windows, hit(key="x" * 100_000 + last, limit=1))

        assert (is_over, count) == (True, 2)
        assert max(len(key) for table in windows.store._tables.values() for key in table.current) < 64


CHARGES = st.lists(
    st.builds(
        hit,
        st.integers(0, 4),
        key=st.sampled_from("abc"),
        limit=st.integers(0, 5),
        window_seconds=st.sampled_from((1, 60)),
    ),
    min_size=1,
    max_size=4,
)
REQUESTS = st.lists(st.tuples(st.floats(0, 40), CHARGES, st.booleans()), max_size=30)


@given(requests=REQUESTS)
def test_counts_are_those_of_a_model_that_never_forgets(requests: list[tuple[float, list[Charge], bool]]) -> None:
    windows, model, now = FixedWindows(), defaultdict[object, int](int), T
    for wait_seconds, charges, all_or_nothing in requests:
        now += wait_seconds
        places = [(c.key, c.window_seconds, now // c.window_seconds) for c in charges]
        after = model.copy()
        expected = []
        for place, charge in zip(places, charges, strict=True):
            after[place] += charge.hits
            expected.append((after[place] > charge.limit, after[place]))
        if all_or_nothing and any(is_over for is_over, _ in expected):
            expected = [(is_over, model[place]) for (is_over, _), place in zip(expected, places, strict=True)]
        else:
            model = after

        tallies = windows.charge(charges, now, all_or_nothing=all_or_nothing)

        assert [(tally.is_over, tally.count) for tally in tallies] == expected
        assert all(
            0 < (tally.reset_seconds or 0) <= c.window_seconds for tally, c in zip(tallies, charges, strict=True)
        )


STEADY = st.tuples(
    st.floats(0, 40), st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 4)), min_size=1, max_size=3)
)


@given(requests=st.lists(STEADY, max_size=40), limit=st.integers(0, 9), all_or_nothing=st.booleans())
def test_no_window_ever_admits_more_than_its_limit(
    requests: list[tuple[float, list[tuple[str, int]]]], limit: int, *, all_or_nothing: bool
) -> None:
    windows, admitted, now = FixedWindows(), defaultdict[tuple[str, float], int](int), T
    for wait_seconds, wanted in requests:
        now += wait_seconds
        charges = [hit(hits, key=key, limit=limit) for key, hits in wanted]
        tallies = windows.charge(charges, now, all_or_nothing=all_or_nothing)
        if not any(tally.is_over for tally in tallies):
            for charge in charges:
                admitted[charge.key, now // 60] += charge.hits

    assert all(hits <= limit for hits in admitted.values())
