"""Median and extremes of repetitions."""

from __future__ import annotations

import statistics

import pytest

from bench.spread import Spread


def test_a_spread_is_the_median_and_the_extremes_of_its_repetitions() -> None:
    assert Spread.of([3.0, 1.0, 10.0]) == Spread(median=3.0, low=1.0, high=10.0)


def test_the_median_of_an_even_number_lies_between_the_middle_two() -> None:
    assert Spread.of(value for value in (4.0, 1.0, 2.0, 8.0)).median == 3.0


def test_a_spread_is_written_with_as_many_digits_as_asked() -> None:
    assert Spread(1.25, -0.5, 30.0).text(1) == "1.2 (-0.5 .. 30.0)"


def test_no_repetitions_have_no_spread() -> None:
    with pytest.raises(statistics.StatisticsError):
        Spread.of([])
