"""How long answers are: a mean that follows what models report, for a bounded number of tenants."""

from __future__ import annotations

import pytest

from extproc.expectation import Expectation


def answered(expectation: Expectation, lengths: list[int], tenant: str = "acme") -> None:
    for output_tokens in lengths:
        expectation.observe(tenant=tenant, model="assistant", output_tokens=output_tokens)


def test_four_answers_are_too_few_to_expect_anything() -> None:
    expectation = Expectation()
    answered(expectation, [100] * 4)

    assert expectation.output_tokens("acme", "assistant") is None


def test_the_first_answers_count_alike() -> None:
    expectation = Expectation()
    answered(expectation, [1000, 100, 100, 100, 100])

    assert expectation.output_tokens("acme", "assistant") == 280
    assert expectation.output_tokens("globex", "assistant") is None


def test_what_is_expected_follows_a_change() -> None:
    expectation = Expectation()
    answered(expectation, [100] * 200 + [500] * 200)

    assert expectation.output_tokens("acme", "assistant") == pytest.approx(500, abs=5)


def test_the_pair_longest_unheard_of_is_forgotten() -> None:
    expectation = Expectation()
    answered(expectation, [100] * 5)
    for number in range(10_000):
        expectation.observe(tenant=f"t{number}", model="assistant", output_tokens=1)

    assert len(expectation) == 10_000
    assert expectation.output_tokens("acme", "assistant") is None
