"""OpenAI's completions (https://platform.openai.com/docs/api-reference/completions)."""

from __future__ import annotations

import msgspec

from extproc.inspection.json import decode
from extproc.inspection.openai import Generating, Limit, build
from extproc.inspection.prompt import read_prompts
from extproc.inspection.request import InferenceRequest
from extproc.inspection.target import Operation


class _Completion(Generating):
    # max_completion_tokens is the newer name and wins where both are sent.
    LIMITS = ("max_completion_tokens", "max_tokens")
    prompt: msgspec.Raw = msgspec.Raw(b"null")
    n: int | None = None
    max_tokens: Limit = msgspec.UNSET
    max_completion_tokens: Limit = msgspec.UNSET


_COMPLETION = msgspec.json.Decoder(_Completion)


def inspect_completion(body: bytes) -> InferenceRequest:
    """Read a completions body; every prompt of a list is answered `n` times."""
    completion = decode(body, _COMPLETION)
    prompt = read_prompts(completion.prompt, "prompt", body)
    return build(Operation.COMPLETION, completion, prompt, n=completion.n, prompts=prompt.messages)
