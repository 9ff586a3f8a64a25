"""Arrivals of an open loop."""

from __future__ import annotations

from itertools import pairwise

import pytest

from bench.schedule import poisson_arrivals


def test_arrivals_are_in_order_and_inside_the_time_given() -> None:
    arrivals = poisson_arrivals(100.0, 10.0, seed=1)
    assert arrivals == sorted(arrivals)
    assert arrivals[0] > 0.0
    assert arrivals[-1] < 10.0


def test_the_same_seed_gives_the_same_arrivals_and_another_seed_others() -> None:
    assert poisson_arrivals(100.0, 2.0, seed=7) == poisson_arrivals(100.0, 2.0, seed=7)
    assert poisson_arrivals(100.0, 2.0, seed=7) != poisson_arrivals(100.0, 2.0, seed=8)


def test_a_longer_schedule_begins_like_a_shorter_one() -> None:
    short = poisson_arrivals(50.0, 2.0, seed=3)
    assert poisson_arrivals(50.0, 4.0, seed=3)[: len(short)] == short


def test_the_rate_is_kept_on_the_long_run_with_gaps_as_uneven_as_those_of_independent_clients() -> None:
    arrivals = poisson_arrivals(100.0, 1000.0, seed=0)
    gaps = [later - earlier for earlier, later in pairwise(arrivals)]
    mean = sum(gaps) / len(gaps)
    variance = sum((gap - mean) ** 2 for gap in gaps) / len(gaps)
    assert mean == pytest.approx(0.01, rel=0.02)
    # An exponential distribution's standard deviation equals its mean.
    assert variance**0.5 == pytest.approx(mean, rel=0.03)
