"""When a tier is degraded, and when it returns: not at every request."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from extproc.degradations import RETURN_BELOW, Degradations

LIMIT = 20


def lasts(degradations: Degradations, saturation: float, *, is_line_empty: bool = False) -> bool:
    return degradations.lasts("interactive", "best", saturation, is_line_empty=is_line_empty)


def test_nobody_is_degraded_before_a_cluster_had_no_room() -> None:
    assert not lasts(Degradations(), 1.0)


def test_a_tier_is_degraded_until_the_cluster_has_emptied_by_a_fifth() -> None:
    degradations = Degradations()
    degradations.begin("interactive", "best", 1.0)

    assert lasts(degradations, 0.95)
    assert lasts(degradations, 0.81)
    assert not lasts(degradations, 0.8)
    assert not lasts(degradations, 0.95)


def test_a_tier_that_others_reservations_keep_from_the_rest_returns_below_what_it_can_have() -> None:
    degradations = Degradations()
    degradations.begin("interactive", "best", 0.75)

    assert lasts(degradations, 0.7)
    assert not lasts(degradations, 0.6)


def test_of_several_refusals_the_one_at_the_emptiest_cluster_counts() -> None:
    degradations = Degradations()
    degradations.begin("interactive", "best", 0.75)
    degradations.begin("interactive", "best", 1.0)

    assert lasts(degradations, 0.7)


def test_a_tier_that_would_rather_wait_returns_when_nobody_of_it_waits() -> None:
    degradations = Degradations()
    degradations.begin("interactive", "best", 1.0)

    assert lasts(degradations, 1.0)
    assert not lasts(degradations, 1.0, is_line_empty=True)


def test_tiers_and_clusters_are_degraded_apart_from_each_other() -> None:
    degradations = Degradations()
    degradations.begin("interactive", "best", 1.0)

    assert not degradations.lasts("premium", "best", 1.0, is_line_empty=False)
    assert not degradations.lasts("interactive", "fast", 1.0, is_line_empty=False)


@given(st.lists(st.booleans(), max_size=600))
def test_a_load_that_hovers_about_the_limit_changes_models_no_more_often_than_a_fifth_of_the_cluster_frees(
    comes: list[bool],
) -> None:
    degradations = Degradations()
    in_use, releases, switches, is_cheaper = LIMIT, 0, 0, False
    for is_arrival in comes:
        if not is_arrival:
            in_use, releases = max(0, in_use - 1), releases + 1
            continue
        goes_cheaper = lasts(degradations, in_use / LIMIT)
        if not goes_cheaper and in_use == LIMIT:
            degradations.begin("interactive", "best", 1.0)
            goes_cheaper = True
        if not goes_cheaper:
            in_use += 1
        switches += goes_cheaper != is_cheaper
        is_cheaper = goes_cheaper

    freed_per_return = LIMIT * (1.0 - RETURN_BELOW)
    assert switches <= 1 + 2 * releases / freed_per_return
