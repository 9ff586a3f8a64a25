"""`/v1/embeddings`: texts in, made-up vectors out, at once. The real trtllm-serve does this in an encoder server."""

from __future__ import annotations

import base64
import math
import random
from array import array

from headgate_cli.trtllm_serve_standin.prompt import Prompt
from headgate_cli.trtllm_serve_standin.request import EmbeddingsRequest

_DIMENSIONS = 16


def embed(request: EmbeddingsRequest) -> dict[str, object]:
    """Return the body of the answer: the same text has the same vector of length 1, every time."""
    prompts = [
        Prompt.from_text(text) if isinstance(text, str) else Prompt.from_token_ids(text) for text in request.prompts
    ]
    tokens = sum(prompt.tokens for prompt in prompts)
    return {
        "object": "list",
        "model": request.model,
        "data": [
            {"object": "embedding", "index": index, "embedding": _written(request, prompt)}
            for index, prompt in enumerate(prompts)
        ],
        "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
    }


def _written(request: EmbeddingsRequest, prompt: Prompt) -> list[float] | str:
    vector = _vector(prompt, request.dimensions or _DIMENSIONS)
    is_packed = request.encoding_format == "base64"
    return base64.b64encode(array("f", vector).tobytes()).decode() if is_packed else vector


def _vector(prompt: Prompt, dimensions: int) -> list[float]:
    draw = random.Random(prompt.checksum)  # noqa: S311  (made up on purpose)
    values = [draw.uniform(-1, 1) for _ in range(dimensions)]
    length = math.sqrt(sum(value * value for value in values)) or 1.0
    return [value / length for value in values]
