"""The bodies trtllm-serve answers with, field by field, nulls included.

The real one leaves nulls out in a chat stream and writes them everywhere else: hence `omit_defaults`.
"""

from __future__ import annotations

import msgspec


class PromptTokensDetails(msgspec.Struct, frozen=True):
    """How many of the prompt's tokens came from the prefix cache."""

    cached_tokens: int


class Usage(msgspec.Struct, frozen=True):
    """Tokens counted by the server; the only exact numbers a proxy gets."""

    prompt_tokens: int
    total_tokens: int
    completion_tokens: int
    prompt_tokens_details: PromptTokensDetails


class ChatMessage(msgspec.Struct, frozen=True, kw_only=True):
    """The answer of one choice."""

    role: str
    content: str
    reasoning_content: str = ""
    reasoning: str | None = None
    tool_calls: tuple[()] = ()


class ChatChoice(msgspec.Struct, frozen=True, kw_only=True):
    """One of the n answers."""

    index: int
    message: ChatMessage
    logprobs: None = None
    finish_reason: str
    stop_reason: str | None
    mm_embedding_handle: None = None
    disaggregated_params: None = None
    avg_decoded_tokens_per_iter: float = 1.0


class ChatCompletion(msgspec.Struct, frozen=True, kw_only=True):
    """The whole body of a chat answer."""

    id: str
    object: str = "chat.completion"
    created: int
    model: str
    choices: list[ChatChoice]
    usage: Usage
    prompt_token_ids: None = None


class ChatDelta(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What is new in a choice: its role at first, then text."""

    role: str | None = None
    content: str | None = None
    reasoning_content: str | None = None


class ChatChunkChoice(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The part of an event that belongs to one choice."""

    index: int
    delta: ChatDelta
    finish_reason: str | None = None
    stop_reason: str | None = None


class ChatChunk(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One event of a chat stream; the one that carries the final usage has no choices."""

    id: str
    object: str
    created: int
    model: str
    choices: list[ChatChunkChoice]
    usage: Usage | None = None


class CompletionChoice(msgspec.Struct, frozen=True, kw_only=True):
    """One of the n answers to one of the prompts; `index` runs over all of them."""

    index: int
    text: str
    token_ids: list[int] | None
    logprobs: None = None
    context_logits: None = None
    finish_reason: str
    stop_reason: str | None
    disaggregated_params: None = None
    avg_decoded_tokens_per_iter: float = 1.0


class Completion(msgspec.Struct, frozen=True, kw_only=True):
    """The whole body of a completion answer."""

    id: str
    object: str = "text_completion"
    created: int
    model: str
    choices: list[CompletionChoice]
    usage: Usage
    prompt_token_ids: None = None


class CompletionChunkChoice(msgspec.Struct, frozen=True, kw_only=True):
    """The part of an event that belongs to one choice."""

    index: int
    text: str
    token_ids: list[int] | None
    logprobs: None = None
    finish_reason: str | None
    stop_reason: str | None
    avg_decoded_tokens_per_iter: float = 1.0


class CompletionChunk(msgspec.Struct, frozen=True, kw_only=True):
    """One event of a completion stream; those that carry a final usage have no choices."""

    id: str
    object: str = "text_completion"
    created: int
    model: str
    choices: list[CompletionChunkChoice]
    usage: Usage | None


class ModelCard(msgspec.Struct, frozen=True, kw_only=True):
    """A model the server knows."""

    id: str
    object: str = "model"
    created: int
    owned_by: str = "tensorrt_llm"


class ModelList(msgspec.Struct, frozen=True, kw_only=True):
    """The answer of `/v1/models`."""

    object: str = "list"
    data: list[ModelCard]
