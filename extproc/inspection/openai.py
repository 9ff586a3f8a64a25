"""What the requests of OpenAI's API have in common: model, stream flag, output limit, and what may be edited."""

from __future__ import annotations

from typing import ClassVar

import msgspec

from extproc.inspection.request import MAX_CHOICES, InferenceRequest, Prompt, RequestError, checked_output_limit
from extproc.inspection.target import Operation
from headgate.policy.model import Protocol

_EDITABLE = (
    "temperature",
    "top_p",
    "top_k",
    "min_p",
    "presence_penalty",
    "frequency_penalty",
    "repetition_penalty",
    "seed",
    "stop",
    "reasoning_effort",
    "priority",
    "stream_options",
)
_UNSET = msgspec.UNSET
_MAX_STREAM_OPTIONS_BYTES = 1024
_MAX_SERVICE_TIER_CHARACTERS = 64


class Generating(msgspec.Struct, gc=False):
    """The fields every one of these requests may have; what is only edited, never read, stays raw.

    Attributes:
        LIMITS: those that limit the output, the one that wins first.
    """

    LIMITS: ClassVar[tuple[str, ...]] = ()
    model: str
    stream: bool | None = None
    prompt_cache_key: str | None = None
    user: str | None = None
    temperature: msgspec.Raw = msgspec.Raw()
    top_p: msgspec.Raw = msgspec.Raw()
    top_k: msgspec.Raw = msgspec.Raw()
    min_p: msgspec.Raw = msgspec.Raw()
    presence_penalty: msgspec.Raw = msgspec.Raw()
    frequency_penalty: msgspec.Raw = msgspec.Raw()
    repetition_penalty: msgspec.Raw = msgspec.Raw()
    seed: msgspec.Raw = msgspec.Raw()
    stop: msgspec.Raw = msgspec.Raw()
    reasoning_effort: msgspec.Raw = msgspec.Raw()
    priority: msgspec.Raw = msgspec.Raw()
    stream_options: msgspec.Raw = msgspec.Raw()
    service_tier: str | msgspec.UnsetType | None = msgspec.UNSET

    def fields(self) -> frozenset[str]:
        """Those present that an edit may concern; the model's name always is."""
        usual = [name for name in _EDITABLE if getattr(self, name)]
        return frozenset(
            ["model", *usual, *(name for name in ("service_tier", *self.LIMITS) if getattr(self, name) is not _UNSET)]
        )


Limit = int | msgspec.UnsetType | None


def build(
    operation: Operation,
    body: Generating,
    prompt: Prompt,
    *,
    has_output: bool = True,
    n: int | None = None,
    prompts: int = 1,
    protocol: Protocol = Protocol.OPENAI,
    session: str | None = None,
) -> InferenceRequest:
    """The request from its body; what is not named here is as in `InferenceRequest`.

    Args:
        prompts: how many prompts the body holds; each is answered `n` times.
        session: the dialect's own name for what its requests belong together by.

    Raises:
        RequestError: a limit or `n` is out of range.
    """
    choices = 1 if n is None else n
    if not 1 <= choices <= MAX_CHOICES:
        raise RequestError(f"'n' has to be between 1 and {MAX_CHOICES}, not {choices}.", param="n")
    if len(body.stream_options) > _MAX_STREAM_OPTIONS_BYTES:
        raise RequestError("'stream_options' is too long.", param="stream_options")
    tier = body.service_tier or ""
    if len(tier) > _MAX_SERVICE_TIER_CHARACTERS:
        raise RequestError("'service_tier' is too long.", param="service_tier")
    limit: int | None = None
    limit_fields: tuple[str, ...] = ()
    are_limits_equal = True
    for name in body.LIMITS:
        value = getattr(body, name)
        if value is not None and value is not _UNSET:
            said = checked_output_limit(value, name)
            limit = said if limit is None else limit
            limit_fields += (name,)
            are_limits_equal = are_limits_equal and said == limit
    return InferenceRequest(
        protocol=protocol,
        operation=operation,
        model=body.model,
        stream=bool(body.stream),
        max_output_tokens=limit,
        output_limit_fields=limit_fields,
        are_output_limits_equal=are_limits_equal,
        choices=choices * max(1, prompts),
        session=session or body.prompt_cache_key or body.user or "",
        service_tier=tier,
        edited=body,
        stream_options=bytes(body.stream_options) if body.stream_options else b"",
        prompt=prompt,
        prompt_tokens=prompt.tokens,
        has_output=has_output,
    )
