"""What finished requests teach: only what a model server itself reported."""

from __future__ import annotations

import pytest

from extproc.calibration import NO_CORRECTION
from extproc.estimates import Estimates
from headgate.record import RequestRecord
from tests import records


def finished(**fields: object) -> RequestRecord:
    return records.finished(**{"prompt_tokens": 1300, "output_tokens": 80, "uncorrected_prompt_tokens": 1000} | fields)


def taught(*, times: int = 64, **fields: object) -> Estimates:
    estimates = Estimates()
    for _ in range(times):
        estimates.learn(finished(**fields))
    return estimates


def test_reported_tokens_correct_the_estimate_and_tell_how_long_answers_are() -> None:
    estimates = taught()

    assert estimates.correction("assistant").factor == 1.3
    assert estimates.output_tokens("acme", "assistant") == 80
    assert estimates.output_tokens("globex", "assistant") is None


@pytest.mark.parametrize(
    "fields",
    [{"prompt_tokens": None, "output_tokens": None}, {"output_tokens": None}, {"uncorrected_prompt_tokens": 0}],
    ids=["nothing reported", "half of it reported", "nothing to learn from"],
)
def test_what_was_not_reported_or_weighed_corrects_nothing(fields: dict[str, object]) -> None:
    assert taught(**fields).correction("assistant") == NO_CORRECTION


def test_a_correction_is_learnt_from_the_estimate_before_corrections() -> None:
    estimates = taught(estimated_prompt_tokens=1300)

    assert estimates.correction("assistant").factor == 1.3
