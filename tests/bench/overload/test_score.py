"""The figures, from outcomes small enough to count by hand."""

from __future__ import annotations

import pytest

from bench.overload.fairness import fairness, jain, max_min_shares
from bench.overload.outcome import Ending, Outcome, Window
from bench.overload.record import ReplicaRecord, SequenceRecord, utilisation
from bench.overload.score import goodput, system_score, tenant_fairness, tier_score, tokens_inside

WINDOW = Window(10.0, 20.0)


def outcome(
    ttft: float | None = 1.0,
    *,
    due: float = 11.0,
    tier: str = "premium",
    tenant: str = "acme",
    ending: Ending = Ending.COMPLETED,
    tokens: int = 11,
    answered_wall_ms: float = 0.0,
) -> Outcome:
    """A request whose other tokens come one second after its first."""
    first = None if ttft is None else due + ttft
    return Outcome(
        number=0,
        tier=tier,
        tenant=tenant,
        due_seconds=due,
        prompt_tokens=10,
        ending=ending,
        first_token_seconds=first,
        progress=[] if first is None else [(first, 1), (first + 1.0, tokens)],
        answered_wall_ms=answered_wall_ms,
    )


def refused(answered_wall_ms: float = 1.0, tier: str = "premium", due: float = 11.0, tenant: str = "acme") -> Outcome:
    return outcome(None, due=due, tier=tier, tenant=tenant, ending=Ending.REFUSED, answered_wall_ms=answered_wall_ms)


def test_a_refused_request_counts_against_attainment_and_share_but_not_in_ttft() -> None:
    score = tier_score([outcome(0.5), outcome(3.0), refused(), refused()], slo_seconds=2.0)
    assert (score.served, score.slo_attainment) == (0.5, 0.25)
    assert (score.ttft_p50_s, score.ttft_p99_s) == (0.5, 3.0)


def test_one_that_gave_up_or_broke_midway_is_not_served() -> None:
    broken = [outcome(0.5, ending=Ending.FAILED), outcome(None, ending=Ending.GAVE_UP)]
    assert tier_score(broken, 2.0).served == 0.0


def test_one_that_was_being_answered_at_the_end_is_served_and_one_that_waited_is_not() -> None:
    cut = [outcome(0.5, ending=Ending.CUT), outcome(None, ending=Ending.CUT)]
    assert tier_score(cut, 2.0).served == 0.5


def test_a_tier_nobody_served_has_no_ttft() -> None:
    score = tier_score([refused()], 2.0)
    assert (score.ttft_p50_s, score.ttft_p95_s, score.ttft_p99_s) == (None, None, None)


def test_tokens_count_where_they_come() -> None:
    # First token at 9.5, ten more evenly until 10.5: half of those ten are inside.
    assert tokens_inside(outcome(1.0, due=8.5), WINDOW) == pytest.approx(5.0)
    assert tokens_inside(outcome(1.0, due=11.0), WINDOW) == pytest.approx(11.0)
    assert tokens_inside(outcome(1.0, due=30.0), WINDOW) == 0.0


def test_goodput_is_of_those_that_met_their_slo_whenever_they_came() -> None:
    outcomes = [outcome(1.0), outcome(5.0), outcome(1.0, due=8.5)]
    assert goodput(outcomes, {"premium": 2.0}, WINDOW) == pytest.approx((11 + 5) / 10)


def test_a_system_is_scored_over_the_requests_that_came_in_the_window() -> None:
    outcomes = [outcome(1.0), refused(4.0), refused(900.0, due=5.0), outcome(1.0, tier="batch", tenant="stark")]
    score = system_score(outcomes, {"premium": 2.0, "batch": 60.0}, WINDOW, utilisation=0.5, reference_tokens_per_s=4.4)
    assert score.tiers["premium"].served == 0.5
    assert score.tiers["batch"].served == 1.0
    assert score.refusal_p99_ms == 4.0
    assert score.goodput_tokens_per_s == pytest.approx(2.2)
    assert score.goodput_ratio_to_1x == pytest.approx(0.5)
    assert score.jain == 1.0


def test_without_refusals_or_reference_there_is_no_figure_for_them() -> None:
    score = system_score([outcome()], {"premium": 2.0}, WINDOW, utilisation=0.5, reference_tokens_per_s=None)
    assert (score.refusal_p99_ms, score.goodput_ratio_to_1x) == (None, None)


def test_jains_index_is_one_for_equals_and_one_nth_for_a_monopoly() -> None:
    assert jain([3.0, 3.0, 3.0]) == pytest.approx(1.0)
    assert jain([9.0, 0.0, 0.0]) == pytest.approx(1 / 3)
    assert jain([]) == 1.0


def test_max_min_gives_the_modest_all_and_divides_the_rest() -> None:
    assert max_min_shares({"a": 1.0, "b": 5.0, "c": 9.0}, 9.0) == {"a": 1.0, "b": 4.0, "c": 4.0}
    assert max_min_shares({"a": 1.0, "b": 2.0}, 9.0) == {"a": 1.0, "b": 2.0}


def test_equal_shares_of_unequal_demands_are_fair_and_proportional_ones_are_not() -> None:
    demands = {"a": 10.0, "b": 20.0, "c": 60.0}
    assert fairness(demands, {"a": 10.0, "b": 10.0, "c": 10.0}) == pytest.approx(1.0)
    assert fairness(demands, {"a": 10 / 3, "b": 20 / 3, "c": 20.0}) < 0.8
    assert fairness(demands, {"a": 0.0, "b": 0.0, "c": 0.0}) == 1.0


def test_a_tier_that_got_next_to_nothing_hardly_counts_for_fairness() -> None:
    fair = [outcome(1.0, tenant=tenant) for tenant in ("acme", "initech") for _ in range(9)]
    starved = [outcome(1.0, tier="batch", tenant="stark"), *(refused(tier="batch", tenant=t) for t in "abc")]
    assert tenant_fairness(fair) == pytest.approx(1.0)
    assert tenant_fairness(starved) == pytest.approx(1 / 4)
    assert tenant_fairness([*fair, *starved]) == pytest.approx((18 * 1.0 + 1 * 0.25) / 19)
    assert tenant_fairness([refused()]) == 1.0


def sequence_record(admitted: float | None, ended: float | None) -> SequenceRecord:
    return SequenceRecord(
        number=0,
        prompt_tokens=1,
        produced_tokens=1,
        is_complete=True,
        arrived_at=0.0,
        admitted_at=admitted,
        first_token_at=None,
        ended_at=ended,
    )


def test_utilisation_is_the_share_of_slot_seconds_taken_inside_the_window() -> None:
    sequences = [sequence_record(5.0, 15.0), sequence_record(12.0, None), sequence_record(None, 18.0)]
    replica = ReplicaRecord(slots=4, max_concurrency=2, tokens_served=0, read_at=30.0, sequences=sequences)
    assert utilisation([replica], WINDOW) == pytest.approx((5.0 + 8.0) / (4 * 10))
    moved = replica.since(2.0)
    assert utilisation([moved], Window(8.0, 18.0)) == utilisation([replica], WINDOW)
