"""What images and audio cost at a model's prices."""

from __future__ import annotations

import pytest

from extproc.inspection.request import InferenceRequest, Prompt
from extproc.media import with_media_priced
from headgate.policy.model import Model, Protocol

MODEL = Model(name="assistant", routes=(), image_tokens=500, audio_tokens_per_second=12.5)


@pytest.mark.parametrize(
    ("images", "audio_seconds", "tokens"), [(0, 0.0, 10), (2, 0.0, 1010), (0, 2.0, 35), (1, 0.01, 511)]
)
def test_images_and_audio_count_among_the_prompt_tokens(images: int, audio_seconds: float, tokens: int) -> None:
    prompt = Prompt(images=images, audio_seconds=audio_seconds)
    request = InferenceRequest(protocol=Protocol.OPENAI, model="assistant", prompt=prompt, prompt_tokens=10)

    assert with_media_priced(request, MODEL).prompt_tokens == tokens
