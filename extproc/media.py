"""What images and audio cost: prompt tokens, at the model's prices in the policy."""

from __future__ import annotations

import math

from msgspec.structs import replace

from extproc.inspection.request import InferenceRequest
from headgate.policy.model import Model


def with_media_priced(request: InferenceRequest, model: Model) -> InferenceRequest:
    """The request with its images and audio counted among its prompt tokens."""
    prompt = request.prompt
    tokens = prompt.images * model.image_tokens + math.ceil(prompt.audio_seconds * model.audio_tokens_per_second)
    return replace(request, prompt_tokens=request.prompt_tokens + tokens) if tokens else request
