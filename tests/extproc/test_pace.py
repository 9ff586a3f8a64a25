"""How fast a line moves, as far as one can be sure of it."""

from __future__ import annotations

import pytest

from extproc.pace import Pace


def watched(seconds: float, *, own: int, others: int = 0, horizon_seconds: float = 10.0) -> Pace:
    """A line watched for so long, and how many slots of 100 tokens a second were its own and others'."""
    pace = Pace()
    pace.look_ahead(horizon_seconds)
    pace.watch(0.0, is_contended=True)
    for second in range(1, round(seconds) + 1):
        for number in range(own + others):
            pace.served(100, float(second), is_own=number < own)
    return pace


def test_a_line_that_is_handed_all_moves_almost_as_fast_as_the_cluster() -> None:
    assert watched(60.0, own=5).seconds_for(5000, 100) == pytest.approx(10.0, rel=0.15)


def test_the_less_a_line_is_handed_of_all_the_less_of_it_is_sure() -> None:
    half = watched(60.0, own=5, others=5).seconds_for(5000, 100)
    fifth = watched(60.0, own=5, others=20).seconds_for(5000, 100)
    tenth = watched(60.0, own=1, others=9).seconds_for(1000, 100)

    assert half is not None
    assert fifth is not None
    assert tenth is not None
    assert 10.0 < half < fifth
    assert tenth > 100.0


def test_a_line_watched_for_a_moment_is_less_sure_than_one_watched_for_its_longest_wait() -> None:
    early = watched(2.0, own=5, others=10).seconds_for(5000, 100)
    late = watched(20.0, own=5, others=10).seconds_for(5000, 100)

    assert early is not None
    assert late is not None
    assert early > 2 * late


def test_nothing_is_known_before_ten_slots_or_the_longest_wait() -> None:
    assert watched(9.0, own=1).seconds_for(100, 100) is None
    assert watched(10.0, own=1, horizon_seconds=60.0).seconds_for(100, 100) is None
    assert watched(3.0, own=4, horizon_seconds=60.0).seconds_for(100, 100) is not None
    assert watched(16.0, own=0, horizon_seconds=10.0).seconds_for(100, 100) is None


def test_a_line_that_stands_still_is_taken_to_be_served_this_very_moment() -> None:
    pace = watched(0.0, own=0)
    pace.watch(60.0, is_contended=True)

    assert pace.seconds_for(100, 100) == pytest.approx(20.0, rel=0.1)
    assert pace.seconds_for(300, 100) == pytest.approx(60.0, rel=0.1)


def test_a_short_pause_is_remembered_and_a_long_one_forgets() -> None:
    def after_a_pause(seconds: float) -> float | None:
        pace = watched(60.0, own=5)
        pace.watch(60.0, is_contended=False)
        pace.watch(60.0 + seconds, is_contended=True)
        return pace.seconds_for(5000, 100)

    assert after_a_pause(1.0) == pytest.approx(10.0, rel=0.15)
    assert after_a_pause(1.5) is None


def test_what_is_handed_out_while_nobody_waits_does_not_count() -> None:
    pace = watched(0.0, own=0)
    pace.watch(0.0, is_contended=False)
    for _ in range(100):
        pace.served(100, 0.5, is_own=True)

    assert pace.seconds_for(100, 100) is None


def test_the_pace_of_late_counts_and_not_that_of_long_ago() -> None:
    pace = watched(100.0, own=10)
    for second in range(101, 201):
        pace.served(100, float(second), is_own=True)

    assert pace.seconds_for(1000, 100) == pytest.approx(10.0, rel=0.2)
