"""How the limit moves: up while it goes well, down when it does not, and never for want of anything to go by."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from extproc.adaptive_limit import MIN_LIMIT, AdaptiveLimit

WELL, BADLY = 1.0, 8.0


class Cluster:
    """Requests that end one after another, each begun five seconds before, with as many in flight as are let in."""

    def __init__(self, start: int) -> None:
        self.limit = AdaptiveLimit(start)
        self.now = 100.0

    def ended(self, count: int, delay: float, *, in_flight: int | None = None, lasted: float = 5.0) -> int:
        for _ in range(count):
            self.now += 0.1
            there = self.limit.limit if in_flight is None else in_flight
            self.limit.observe(delay, self.now - lasted, there, self.now)
        return self.limit.limit


def test_it_doubles_from_the_start_while_all_goes_well() -> None:
    cluster = Cluster(16)

    assert cluster.ended(20, WELL) == 32
    assert cluster.ended(100, WELL) == 64


def test_it_shrinks_when_requests_are_delayed_but_never_by_more_than_half_a_step() -> None:
    assert Cluster(100).ended(20, BADLY) == 50
    assert Cluster(100).ended(20, 2.5) == 89
    assert Cluster(100).ended(20, math.inf) == 50


def test_it_stays_between_comfort_and_congestion() -> None:
    assert Cluster(100).ended(500, 1.8) == 100


def test_it_does_not_grow_while_it_is_not_used() -> None:
    assert Cluster(100).ended(500, WELL, in_flight=70) == 100


def test_a_few_delayed_requests_change_nothing() -> None:
    cluster = Cluster(100)
    for _ in range(50):
        cluster.ended(1, 100.0, in_flight=50)
        cluster.ended(1, WELL, in_flight=50)

    assert cluster.limit.limit == 100


def test_requests_begun_before_the_last_step_say_nothing_about_it() -> None:
    cluster = Cluster(100)
    cluster.ended(20, BADLY)

    assert cluster.ended(49, BADLY) == 50


def test_a_smaller_limit_is_judged_once_the_cluster_has_emptied_down_to_it() -> None:
    cluster = Cluster(100)
    cluster.ended(20, BADLY)

    assert cluster.ended(500, 2 * BADLY, in_flight=60) == 50
    assert cluster.ended(100, WELL) > 50


def test_growth_quickens_while_it_goes_well_and_slows_where_it_was_too_much_before() -> None:
    cluster = Cluster(100)
    cluster.ended(20, 3.0)
    steps = [cluster.ended(75, WELL) for _ in range(4)]

    assert steps[0] > 81
    assert all(limit <= 95 + number for number, limit in enumerate(steps))


def test_after_a_collapse_it_doubles_again_as_from_the_start() -> None:
    cluster = Cluster(64)
    while cluster.ended(20, math.inf) > MIN_LIMIT:
        pass

    limits = [cluster.ended(70, WELL) for _ in range(5)]
    assert limits == [4, 8, 16, 32, 64]
    # And no more, once it has been too much.
    assert cluster.ended(70, 3.0) == 52
    assert cluster.ended(70, WELL) < 64


def test_shrinking_that_does_not_help_is_given_up_and_the_fault_looked_for_elsewhere() -> None:
    cluster, expected, lowest = Cluster(100), 1.0, 100
    for _ in range(400):
        cluster.now += 0.1
        in_flight = min(70, cluster.limit.limit)
        expected *= cluster.limit.observe(4.0 / expected, cluster.now - 1.0, in_flight, cluster.now)
        lowest = min(lowest, cluster.limit.limit)

    assert (expected, cluster.limit.limit) == (4.0, 100)
    assert lowest == 49


@settings(max_examples=100, deadline=None)
@given(
    st.integers(1, 500),
    st.lists(
        st.tuples(
            st.floats(0.0, 1e6) | st.just(math.inf), st.integers(0, 2000), st.floats(0.0, 100.0), st.floats(0.0, 5.0)
        ),
        max_size=300,
    ),
)
def test_it_never_falls_below_what_keeps_a_cluster_alive(
    start: int, ended: list[tuple[float, int, float, float]]
) -> None:
    limit, now = AdaptiveLimit(start), 0.0
    for delay, in_flight, lasted, gap in ended:
        now += gap
        raised_by = limit.observe(delay, now - lasted, in_flight, now)
        assert limit.limit >= MIN_LIMIT
        assert 1.0 <= raised_by < math.inf


@pytest.mark.parametrize("seed", range(10))
def test_noise_alone_never_brings_it_down(seed: int) -> None:
    """A cluster that is never congested, whose first tokens are all over the place."""
    draw = random.Random(seed)
    cluster = Cluster(32)
    for _ in range(5000):
        cluster.ended(1, draw.lognormvariate(0.0, 1.0), in_flight=30)

    assert cluster.limit.limit >= 32
