"""Percentiles by nearest rank."""

from __future__ import annotations

import pytest

from bench.percentiles import Percentiles, nearest_rank


@pytest.mark.parametrize(("percent", "value"), [(0, 1), (1, 1), (50, 50), (50.5, 51), (99, 99), (100, 100)])
def test_a_percentile_of_a_hundred_values_is_the_value_at_that_rank(percent: float, value: float) -> None:
    assert nearest_rank(range(1, 101), percent) == value


def test_every_percentile_of_one_value_is_that_value() -> None:
    assert Percentiles.of_seconds([0.25]) == Percentiles(p50_ms=250, p90_ms=250, p99_ms=250)


def test_a_percentile_is_always_a_value_that_was_seen() -> None:
    assert nearest_rank([1.0, 9.0], 50) == 1.0
    assert nearest_rank([1.0, 9.0], 51) == 9.0


def test_times_in_any_order_become_milliseconds() -> None:
    seconds = [0.004, 0.001, 0.010, 0.003, 0.002, 0.006, 0.005, 0.008, 0.007, 0.009]
    assert Percentiles.of_seconds(seconds) == Percentiles(p50_ms=5, p90_ms=9, p99_ms=10)


def test_no_values_have_no_percentile() -> None:
    with pytest.raises(ValueError, match="no values"):
        Percentiles.of_seconds([])
