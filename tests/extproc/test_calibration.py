"""What models report corrects the byte estimate: slowly, within bounds, and by no tenant alone."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extproc.calibration import MAX_FACTOR, MIN_FACTOR, NO_CORRECTION, Calibration


def observed(calibration: Calibration, ratios: list[float], *, tenant: str = "acme", model: str = "assistant") -> None:
    for ratio in ratios:
        calibration.observe(model=model, tenant=tenant, estimated_tokens=1000, reported_tokens=round(1000 * ratio))


def test_nothing_is_corrected_before_enough_is_known() -> None:
    calibration = Calibration()
    observed(calibration, [1.3] * 49)

    assert calibration.correction("assistant") == NO_CORRECTION


def test_the_median_of_what_models_report_corrects_the_estimate() -> None:
    calibration = Calibration()
    observed(calibration, [1.3] * 40 + [9.0] * 3 + [1.3] * 21)

    correction = calibration.correction("assistant")
    assert (correction.factor, correction.low) == (1.3, 1.0)
    assert calibration.correction("other") == NO_CORRECTION


def test_the_band_holds_nearly_all_that_was_seen() -> None:
    calibration = Calibration()
    observed(calibration, [0.8 + 0.4 * (index * 37 % 128) / 128 for index in range(128)])

    correction = calibration.correction("assistant")
    assert correction.factor == pytest.approx(1.0, abs=0.01)
    assert correction.low == pytest.approx(0.81, abs=0.02)
    assert correction.high == pytest.approx(1.19, abs=0.02)


def test_one_tenant_among_many_does_not_bend_the_correction() -> None:
    calibration = Calibration()
    for tenant in ("acme", "globex", "umbrella"):
        observed(calibration, [1.0] * 32, tenant=tenant)
    observed(calibration, [0.1] * 5000, tenant="mallory")

    assert calibration.correction("assistant").factor == 1.0


@pytest.mark.parametrize(("ratio", "factor"), [(0.01, MIN_FACTOR), (50.0, MAX_FACTOR)])
def test_a_correction_stays_within_its_bounds_and_the_band_says_so(ratio: float, factor: float) -> None:
    calibration = Calibration()
    observed(calibration, [ratio] * 64)

    correction = calibration.correction("assistant")
    assert correction.factor == factor
    assert correction.low <= ratio / factor <= correction.high


def test_a_prompt_that_is_mostly_template_teaches_nothing() -> None:
    calibration = Calibration()
    for _ in range(500):
        calibration.observe(model="assistant", tenant="acme", estimated_tokens=5, reported_tokens=40)
        calibration.observe(model="assistant", tenant="acme", estimated_tokens=500, reported_tokens=0)

    assert calibration.correction("assistant") == NO_CORRECTION


@given(st.lists(st.tuples(st.integers(0, 2000), st.integers(32, 10**9), st.integers(0, 10**9)), max_size=300))
def test_whatever_is_reported_the_correction_is_one_that_can_be_used(seen: list[tuple[int, int, int]]) -> None:
    calibration = Calibration()
    for tenant, estimated_tokens, reported_tokens in seen:
        calibration.observe(
            model="m", tenant=str(tenant), estimated_tokens=estimated_tokens, reported_tokens=reported_tokens
        )

    correction = calibration.correction("m")
    assert MIN_FACTOR <= correction.factor <= MAX_FACTOR
    assert 0.0 <= correction.low <= 1.0 <= correction.high
