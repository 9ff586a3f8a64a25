"""From estimates and counts to errors."""

from __future__ import annotations

import pytest

from bench.inspect.accuracy import accuracies
from extproc.tokens import estimate_tokens


def test_an_error_is_a_factor_whichever_way_it_goes() -> None:
    def count(text: str) -> dict[str, int]:
        estimate = estimate_tokens(text)
        return {"low": estimate * 2, "exact": estimate, "high": estimate // 2}

    [plain, every] = accuracies({"plain": "word and more words " * 2000}, count)

    assert plain.kind == "plain"
    assert (plain.bias, plain.p50) == (1.0, pytest.approx(1.0, rel=0.05))
    assert (plain.worst, plain.worst_under) == (pytest.approx(1.0, rel=0.05), 1.0)
    assert (every.kind, every.pieces) == ("all", plain.pieces)


def test_an_error_that_is_always_the_same_is_gone_after_calibration() -> None:
    def count(text: str) -> dict[str, int]:
        return {"one": estimate_tokens(text) * 3 // 2, "other": estimate_tokens(text) * 3 // 2}

    [plain, _] = accuracies({"plain": "word and more words " * 2000}, count)

    assert plain.p95 == pytest.approx(0.5, rel=0.05)
    assert plain.calibrated_p95 == pytest.approx(0.0, abs=0.02)
