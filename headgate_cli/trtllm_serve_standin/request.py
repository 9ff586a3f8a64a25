"""The requests trtllm-serve accepts: every field it knows and no other, for the real models are `extra=forbid`.

Most sampling fields are here only so that they are accepted: the made-up model has no use for them. Stricter than
the real one in one point: a number in quotes is refused, where pydantic would convert it.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import Annotated, Any, Literal, TypeVar

import msgspec

from headgate_cli.trtllm_serve_standin.refusal import Refusal

Count = Annotated[int, msgspec.Meta(ge=1)]
T = TypeVar("T")
TokenId = Annotated[int, msgspec.Meta(ge=0, le=0xFFFF_FFFF)]


class _Strict(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A model that refuses fields it does not know."""


class StreamOptions(_Strict, frozen=True, kw_only=True):
    """Which events carry usage. Given at all, usage is on unless switched off."""

    include_usage: bool | None = True
    continuous_usage_stats: bool | None = False


class ResponseFormat(_Strict, frozen=True, kw_only=True):
    """Accepted; the made-up text never follows it."""

    type: Literal["text", "json", "json_schema", "json_object", "regex", "ebnf", "structural_tag"]
    schema: dict[str, Any] | None = None
    json_schema: dict[str, Any] | None = None
    regex: str | None = None
    ebnf: str | None = None
    format: dict[str, Any] | None = None


class FunctionDefinition(_Strict, frozen=True, kw_only=True):
    """A function the model may call."""

    name: str
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class Tool(_Strict, frozen=True, kw_only=True):
    """Accepted and counted in the prompt; the made-up text never calls one."""

    type: Literal["function"] = "function"
    function: FunctionDefinition


class Message(msgspec.Struct, frozen=True, kw_only=True):
    """One turn of a chat. Unlike the request around it, it may carry fields the server does not know."""

    role: str
    content: str | list[str | dict[str, Any]] | None = None
    tool_calls: list[dict[str, Any]] | None = None


class _Generate(_Strict, frozen=True, kw_only=True):
    """What both endpoints accept."""

    model: str
    n: Annotated[int, msgspec.Meta(ge=1, le=128)] = 1
    best_of: int | None = None
    seed: int | None = None
    stop: str | list[str] | None = None
    stop_token_ids: list[int] | None = None
    include_stop_str_in_output: bool = False
    ignore_eos: bool = False
    min_tokens: Annotated[int, msgspec.Meta(ge=0)] = 0
    stream: bool | None = False
    stream_options: StreamOptions | None = None
    response_format: ResponseFormat | None = None
    temperature: Annotated[float, msgspec.Meta(ge=0)] | None = None
    top_p: Annotated[float, msgspec.Meta(gt=0, le=1)] | None = None
    top_k: int = 0
    top_p_min: float = 0.0
    min_p: float = 0.0
    frequency_penalty: float | None = 0.0
    presence_penalty: float | None = 0.0
    repetition_penalty: float = 1.0
    length_penalty: float | None = None
    early_stopping: bool | Literal["never"] | None = None
    logit_bias: dict[str, float] | None = None
    use_beam_search: bool = False
    prompt_ignore_length: int | None = 0
    skip_special_tokens: bool = True
    spaces_between_special_tokens: bool = True
    truncate_prompt_tokens: Count | None = None
    thinking_token_budget: int | None = None
    user: str | None = None
    lora_request: dict[str, Any] | None = None
    disaggregated_params: dict[str, Any] | None = None
    conversation_params: dict[str, Any] | None = None
    priority: Annotated[float, msgspec.Meta(ge=0, le=1)] | None = None

    def __post_init__(self) -> None:
        if self.stream_options is not None and not self.stream:
            raise ValueError("stream_options can only be given when stream is true")

    @property
    def stops(self) -> tuple[str, ...]:
        """The stop strings, however they were given."""
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())


class ChatRequest(_Generate, frozen=True, kw_only=True):
    """`POST /v1/chat/completions`."""

    messages: Annotated[list[Message], msgspec.Meta(min_length=1)]
    max_tokens: Count | None = None
    max_completion_tokens: Count | None = None
    logprobs: bool | None = False
    top_logprobs: int | None = 0
    tools: list[Tool] | None = None
    tool_choice: Literal["none", "auto", "required"] | dict[str, Any] | None = "none"
    parallel_tool_calls: bool | None = None
    reasoning_effort: Literal["low", "medium", "high", "max", "none"] | None = "low"
    thinking: dict[str, Any] | None = None
    prompt_token_ids: list[TokenId] | None = None
    echo: bool = False
    add_generation_prompt: bool = True
    add_special_tokens: bool = False
    documents: list[dict[str, str]] | None = None
    chat_template: str | None = None
    chat_template_kwargs: dict[str, Any] | None = None
    media_io_kwargs: dict[str, dict[str, Any]] | None = None
    mm_processor_kwargs: dict[str, Any] | None = None
    cache_salt: str | None = None
    agent_hierarchy: Any = None

    def __post_init__(self) -> None:
        super().__post_init__()
        # In the real one `max_tokens` is an alias of the other name, and its model forbids the loser.
        if self.max_tokens is not None and self.max_completion_tokens is not None:
            raise ValueError("max_tokens and max_completion_tokens are one field: give one of them")

    @property
    def token_limit(self) -> int | None:
        """The most tokens the answer may have, None for as many as fit."""
        return self.max_tokens if self.max_completion_tokens is None else self.max_completion_tokens


class CompletionRequest(_Generate, frozen=True, kw_only=True):
    """`POST /v1/completions`. The prompt is text, token ids, or a list of either."""

    prompt: str | Annotated[list[TokenId | str | list[TokenId]], msgspec.Meta(min_length=1)]
    max_tokens: Count | None = None
    logprobs: int | None = None
    echo: bool | None = False
    suffix: str | None = None
    add_special_tokens: bool = True
    return_context_logits: bool = False
    detokenize: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.suffix:
            raise ValueError("suffix is not supported")
        if not isinstance(self.prompt, str) and len({type(item) for item in self.prompt}) > 1:
            raise ValueError("prompt mixes text and token ids")

    @property
    def token_limit(self) -> int | None:
        """The most tokens each answer may have, None for as many as fit."""
        return self.max_tokens

    @property
    def prompts(self) -> list[str | list[int]]:
        """The prompts one by one."""
        if isinstance(self.prompt, str):
            return [self.prompt]
        token_ids = [item for item in self.prompt if isinstance(item, int)]
        return [token_ids] if token_ids else [item for item in self.prompt if not isinstance(item, int)]


class EmbeddingsRequest(_Strict, frozen=True, kw_only=True):
    """`POST /v1/embeddings`, as the encoder server takes it."""

    model: str
    input: str | Annotated[list[TokenId | str | list[TokenId]], msgspec.Meta(min_length=1)]
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: Annotated[int, msgspec.Meta(ge=1, le=4096)] | None = None
    user: str | None = None

    @property
    def prompts(self) -> list[str | list[int]]:
        """The texts one by one."""
        if isinstance(self.input, str):
            return [self.input]
        token_ids = [item for item in self.input if isinstance(item, int)]
        return [token_ids] if token_ids else [item for item in self.input if not isinstance(item, int)]


class ResponsesRequest(_Strict, frozen=True, kw_only=True):
    """`POST /v1/responses`: text or messages in; nothing is stored, no tool of the server's own is run."""

    model: str
    input: str | Annotated[list[dict[str, Any]], msgspec.Meta(min_length=1)]
    instructions: str | None = None
    max_output_tokens: Count | None = None
    stream: bool | None = False
    temperature: Annotated[float, msgspec.Meta(ge=0)] | None = None
    top_p: Annotated[float, msgspec.Meta(gt=0, le=1)] | None = None
    tools: list[dict[str, Any]] | None = None
    tool_choice: str | dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    reasoning: dict[str, Any] | None = None
    text: dict[str, Any] | None = None
    metadata: dict[str, str] | None = None
    service_tier: str | None = None
    store: bool | None = None
    truncation: str | None = None
    user: str | None = None

    def as_chat(self) -> ChatRequest:
        """The chat the request amounts to."""
        turns = [{"role": "user", "content": self.input}] if isinstance(self.input, str) else self.input
        system = [Message(role="system", content=self.instructions)] if self.instructions else []
        return ChatRequest(
            model=self.model,
            messages=[*system, *(_turn(turn) for turn in turns)],
            max_completion_tokens=self.max_output_tokens,
            stream=self.stream,
        )


class MessagesRequest(msgspec.Struct, frozen=True, kw_only=True):
    """`POST /v1/messages`, Anthropic's. Fields it does not know pass, unlike with the others, as with the real one."""

    model: str
    messages: Annotated[list[Message], msgspec.Meta(min_length=1)]
    max_tokens: Count
    system: str | list[dict[str, Any]] | None = None
    tools: list[dict[str, Any]] | None = None
    stream: bool | None = False
    temperature: Annotated[float, msgspec.Meta(ge=0, le=1)] | None = None

    def as_chat(self) -> ChatRequest:
        """The chat the request amounts to."""
        blocks = [self.system] if isinstance(self.system, str) else self.system or []
        system = [Message(role="system", content=[*blocks])] if blocks else []
        return ChatRequest(
            model=self.model,
            messages=[*system, *self.messages],
            max_completion_tokens=self.max_tokens,
            stream=self.stream,
        )


def _turn(item: dict[str, Any]) -> Message:
    content = item.get("content", item.get("output", item.get("arguments", "")))
    return Message(role=str(item.get("role", item.get("type", "user"))), content=content)


_CHAT = msgspec.json.Decoder(ChatRequest)
_COMPLETION = msgspec.json.Decoder(CompletionRequest)
_EMBEDDINGS = msgspec.json.Decoder(EmbeddingsRequest)
_RESPONSES = msgspec.json.Decoder(ResponsesRequest)
_MESSAGES = msgspec.json.Decoder(MessagesRequest)


def parse_chat(body: bytes) -> ChatRequest:
    """Parse the body of a chat request; `Refusal` (400) if it is not one."""
    return _parse(_CHAT, body)


def parse_completion(body: bytes) -> CompletionRequest:
    """Parse the body of a completion request; `Refusal` (400) if it is not one."""
    return _parse(_COMPLETION, body)


def parse_embeddings(body: bytes) -> EmbeddingsRequest:
    """Parse the body of an embeddings request; `Refusal` (400) if it is not one."""
    return _parse(_EMBEDDINGS, body)


def parse_responses(body: bytes) -> ResponsesRequest:
    """Parse the body of a responses request; `Refusal` (400) if it is not one."""
    return _parse(_RESPONSES, body)


def parse_messages(body: bytes) -> MessagesRequest:
    """Parse the body of a messages request; `Refusal` (400) if it is not one."""
    return _parse(_MESSAGES, body)


def _parse(decoder: msgspec.json.Decoder[T], body: bytes) -> T:
    try:
        return decoder.decode(body)
    except (msgspec.DecodeError, RecursionError) as error:
        raise Refusal(HTTPStatus.BAD_REQUEST, str(error)) from error
