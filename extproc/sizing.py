"""How big a request is, in tokens: the estimate, corrected by what was learned, and media at the model's prices."""

from __future__ import annotations

from msgspec.structs import replace

from extproc.calibration import Correction
from extproc.identity import Identity
from extproc.inspection.request import InferenceRequest
from extproc.media import with_media_priced
from extproc.routing import capped_output_tokens
from extproc.threshold import is_decisive, thresholds
from headgate.policy.model import Model, Policy


def sized(
    request: InferenceRequest, model: Model, correction: Correction, expected_output_tokens: int | None
) -> InferenceRequest:
    """The request with its estimate corrected and its media priced. Token ids need no correction."""
    prompt, estimate = request.prompt, request.prompt_tokens
    corrected = round(estimate * correction.factor) if prompt.size_bytes else estimate
    has_media = prompt.images or prompt.audio_seconds
    known = replace(
        request,
        prompt_tokens=corrected,
        # What media cost is a price, and no estimate to learn from.
        uncorrected_prompt_tokens=0 if has_media or not prompt.size_bytes else estimate,
        expected_output_tokens=expected_output_tokens,
    )
    return with_media_priced(known, model) if has_media else known


def counted(request: InferenceRequest, model: Model, text_tokens: int) -> InferenceRequest:
    """The request with its texts counted exactly."""
    exact = replace(request, prompt_tokens=text_tokens + request.prompt.overhead_tokens)
    return with_media_priced(exact, model)


def is_worth_counting(
    policy: Policy, identity: Identity, model: Model, request: InferenceRequest, correction: Correction
) -> bool:
    """Whether an exact count, which takes its time, could change what is decided."""
    if model.tokenizer is None or not request.prompt.texts:
        return False
    output_tokens = capped_output_tokens(request.max_output_tokens, identity.tier.output_tokens, None) or 0
    output_tokens *= request.choices
    return is_decisive(request.prompt_tokens, correction, thresholds(policy, identity, model, output_tokens))
