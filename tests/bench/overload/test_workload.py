"""The offered load built from a trace."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from pathlib import Path

import pytest

from bench.overload.mix import MIX
from bench.overload.trace import TraceMissing, TraceRequest, read_trace
from bench.overload.workload import STRETCH_REQUESTS, build

TRACE = [TraceRequest(number * 0.5, 100 + number % 7, 10 + number % 5) for number in range(2 * STRETCH_REQUESTS)]


def test_the_mean_rate_is_the_one_asked_for() -> None:
    arrivals = build(TRACE, 8.0, 100.0, seed=1)
    assert len(arrivals) == 800
    assert all(0 <= arrival.due_seconds < 100 for arrival in arrivals)
    assert sorted(arrival.due_seconds for arrival in arrivals) == [arrival.due_seconds for arrival in arrivals]


def test_a_lull_of_the_trace_is_a_lull_of_the_load() -> None:
    half = STRETCH_REQUESTS // 2
    trace = [
        TraceRequest(number * 1.0 + (STRETCH_REQUESTS if number >= half else 0), 10, 10)
        for number in range(STRETCH_REQUESTS + 1)
    ]
    due = [arrival.due_seconds for arrival in build(trace, 10.0, 60.0, seed=1)]
    gaps = [later - earlier for earlier, later in pairwise(due)]
    assert max(gaps) == pytest.approx(30.0, rel=0.02)


def test_every_load_has_the_same_lengths() -> None:
    def mean_prompt(rate: float) -> float:
        arrivals = build(rising, rate, 100.0, seed=1)
        return sum(arrival.prompt_tokens for arrival in arrivals) / len(arrivals)

    rising = [TraceRequest(number * 0.5, 1 + number, 10) for number in range(2 * STRETCH_REQUESTS)]
    assert mean_prompt(4.0) == pytest.approx(mean_prompt(16.0), rel=0.01)


def test_the_same_arguments_give_the_same_load_and_another_seed_other_people() -> None:
    assert build(TRACE, 5.0, 60.0, seed=1) == build(TRACE, 5.0, 60.0, seed=1)
    assert build(TRACE, 5.0, 60.0, seed=1) != build(TRACE, 5.0, 60.0, seed=2)


def test_tiers_and_tenants_have_their_shares() -> None:
    arrivals = build(TRACE, 50.0, 100.0, seed=1)
    tiers = Counter(arrival.tier for arrival in arrivals)
    for tier, part in MIX.items():
        assert tiers[tier] / len(arrivals) == pytest.approx(part.share, abs=0.02)
    tenants = Counter(arrival.tenant for arrival in arrivals if arrival.tier == "batch")
    assert tenants["lexcorp"] / tenants["stark"] == pytest.approx(6.0, rel=0.3)


def test_a_client_brings_the_patience_and_the_output_limit_of_its_tier() -> None:
    for arrival in build(TRACE, 5.0, 60.0, seed=1):
        part = MIX[arrival.tier]
        assert (arrival.patience_seconds, arrival.max_tokens) == (part.patience_seconds, part.max_tokens)
        assert arrival.tenant in part.tenants


def test_a_trace_that_is_too_short_is_named_as_the_cause() -> None:
    with pytest.raises(TraceMissing, match="the trace has 5"):
        build(TRACE[:5], 8.0, 100.0, seed=1)


def test_a_trace_is_read_with_seconds_from_its_first_request(tmp_path: Path) -> None:
    path = tmp_path / "trace.csv"
    path.write_text(
        "TIMESTAMP,ContextTokens,GeneratedTokens\n"
        "2023-11-16 18:15:46.6805900,374,44\n"
        "2023-11-16 18:15:50.9951690,396,109\n"
    )
    first, second = read_trace(path)
    assert (first.at_seconds, first.prompt_tokens, first.answer_tokens) == (0.0, 374, 44)
    assert second.at_seconds == pytest.approx(4.314579)


def test_a_missing_trace_says_what_it_is_and_how_to_name_another(tmp_path: Path) -> None:
    with pytest.raises(TraceMissing, match="--trace FILE"):
        read_trace(tmp_path / "none.csv")


@pytest.mark.parametrize("text", ["a,b\n1,2\n", "TIMESTAMP,ContextTokens,GeneratedTokens\n"])
def test_a_file_that_is_no_trace_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "trace.csv"
    path.write_text(text)
    with pytest.raises(TraceMissing):
        read_trace(path)


def test_the_mix_is_whole() -> None:
    assert sum(part.share for part in MIX.values()) == pytest.approx(1.0)
    assert len({tenant for part in MIX.values() for tenant in part.tenants}) == sum(
        len(part.tenants) for part in MIX.values()
    )
