"""What a first token takes without congestion, learnt from what it took."""

from __future__ import annotations

import random

import pytest

from extproc.first_token import FirstTokenModel

STEP_SECONDS, TOKEN_SECONDS = 0.015, 0.00015


def unhindered(prompt_tokens: int) -> float:
    return STEP_SECONDS + TOKEN_SECONDS * prompt_tokens


def learnt(count: int = 2000, spread: float = 0.0, seed: int = 1) -> FirstTokenModel:
    """From prompts of all sizes, some of which took longer than they had to."""
    model, draw = FirstTokenModel(), random.Random(seed)
    for number in range(count):
        prompt_tokens = round(draw.lognormvariate(6.5, 1.0))
        model.learn(prompt_tokens, unhindered(prompt_tokens) * (1.0 + draw.expovariate(1.0) * spread), number / 10)
    return model


def test_a_size_never_seen_is_not_guessed() -> None:
    model = FirstTokenModel()
    for _ in range(16):
        model.learn(1000, 0.2, 0.0)

    assert model.expected_seconds(1000) == pytest.approx(0.2)
    assert model.expected_seconds(100_000) is None


@pytest.mark.parametrize("prompt_tokens", [300, 700, 1500, 3000])
def test_what_is_expected_grows_with_the_prompt(prompt_tokens: int) -> None:
    assert learnt().expected_seconds(prompt_tokens) == pytest.approx(unhindered(prompt_tokens), rel=0.1)


@pytest.mark.parametrize("prompt_tokens", [300, 700, 1500, 3000])
@pytest.mark.parametrize("seed", range(5))
def test_delays_of_most_requests_hardly_move_it(prompt_tokens: int, seed: int) -> None:
    expected = learnt(spread=1.0, seed=seed).expected_seconds(prompt_tokens)

    assert expected == pytest.approx(unhindered(prompt_tokens), rel=0.35)


def test_a_long_congestion_is_not_taken_for_normal() -> None:
    model = learnt()
    for number in range(600):
        model.learn(1000, 20.0 * unhindered(1000), 200.0 + number / 10)

    assert model.expected_seconds(1000) == pytest.approx(unhindered(1000), rel=0.2)


def test_a_model_that_has_become_slower_is_believed_within_the_hour() -> None:
    model = learnt()
    for number in range(3600):
        model.learn(1000, 5.0 * unhindered(1000), 200.0 + number)

    assert model.expected_seconds(1000) == pytest.approx(5.0 * unhindered(1000), rel=0.1)


def test_a_model_that_has_become_faster_is_believed_at_once() -> None:
    model = learnt()
    for _ in range(16):
        model.learn(1000, 0.5 * unhindered(1000), 201.0)

    assert model.expected_seconds(1000) == pytest.approx(0.5 * unhindered(1000), rel=0.1)


def test_what_was_too_little_is_raised_for_all_sizes() -> None:
    model = learnt()

    model.raise_by(3.0)

    assert model.expected_seconds(700) == pytest.approx(3.0 * unhindered(700), rel=0.1)
    assert model.expected_seconds(3000) == pytest.approx(3.0 * unhindered(3000), rel=0.1)


@pytest.mark.parametrize("prompt_tokens", [0, -1])
def test_a_prompt_of_unknown_size_is_of_no_size(prompt_tokens: int) -> None:
    model = FirstTokenModel()
    for _ in range(16):
        model.learn(prompt_tokens, 0.02, 0.0)

    assert model.expected_seconds(0) == pytest.approx(0.02)
