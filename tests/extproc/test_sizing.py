"""How big a request is taken for: corrected, priced, and counted only where that decides something."""

from __future__ import annotations

from dataclasses import replace as revised
from typing import Any

import pytest
from msgspec.structs import replace

from extproc.calibration import NO_CORRECTION, Correction
from extproc.identity import Identity
from extproc.inspection.request import InferenceRequest, Prompt
from extproc.sizing import counted, is_worth_counting, sized
from headgate.policy.model import Model, Policy, Protocol

REQUEST = InferenceRequest(
    protocol=Protocol.OPENAI,
    model="assistant",
    prompt=Prompt(size_bytes=4000, tokens=1000, overhead_tokens=8, texts=("the prompt",)),
    prompt_tokens=1000,
)
SURE = Correction(factor=1.0, low=0.95, high=1.05)


def with_prompt(**changes: Any) -> InferenceRequest:
    return replace(REQUEST, prompt=replace(REQUEST.prompt, **changes))


@pytest.fixture
def model(policy: Policy) -> Model:
    """Decides at 1,000 prompt tokens, and can count."""
    [first, *others] = policy.models["assistant"].routes
    by_size = revised(first, when=policy.rules.compile("prompt_tokens > 1000"))
    return revised(policy.models["assistant"], routes=(by_size, *others), tokenizer="tokenizer.json", image_tokens=100)


def test_an_estimate_is_corrected_and_kept_to_learn_from(model: Model) -> None:
    request = sized(REQUEST, model, Correction(factor=1.2), 300)

    assert (request.prompt_tokens, request.uncorrected_prompt_tokens, request.expected_output_tokens) == (
        1200,
        1000,
        300,
    )


def test_media_are_priced_after_the_correction_and_teach_nothing(model: Model) -> None:
    request = sized(with_prompt(images=2), model, Correction(factor=1.5), None)

    assert (request.prompt_tokens, request.uncorrected_prompt_tokens) == (1700, 0)


def test_token_ids_are_exact_already(model: Model) -> None:
    request = sized(with_prompt(size_bytes=0), model, Correction(factor=1.5), None)

    assert (request.prompt_tokens, request.uncorrected_prompt_tokens) == (1000, 0)


def test_an_exact_count_has_the_template_and_the_media_on_top(model: Model) -> None:
    assert counted(with_prompt(images=1), model, 950).prompt_tokens == 950 + 8 + 100


@pytest.mark.parametrize(("tokens", "is_worth_it"), [(900, False), (960, True), (1040, True), (1100, False)])
def test_counting_is_worth_it_near_a_number_that_decides(
    policy: Policy, model: Model, tokens: int, is_worth_it: bool
) -> None:
    who = Identity(policy.tenants["acme"], policy.tiers["premium"])
    request = replace(REQUEST, prompt_tokens=tokens)

    assert is_worth_counting(policy, who, model, request, SURE) is is_worth_it


@pytest.mark.parametrize(
    ("change", "tokenizer"), [({"texts": ()}, "tokenizer.json"), ({}, None)], ids=["nothing to count", "no tokenizer"]
)
def test_without_texts_or_a_tokenizer_nothing_is_counted(
    policy: Policy, model: Model, change: dict[str, Any], tokenizer: str | None
) -> None:
    who = Identity(policy.tenants["acme"], policy.tiers["premium"])

    assert not is_worth_counting(policy, who, revised(model, tokenizer=tokenizer), with_prompt(**change), NO_CORRECTION)
