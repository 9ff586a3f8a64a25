"""OpenAI chat/completions and completions bodies (https://platform.openai.com/docs/api-reference)."""

from __future__ import annotations

import msgspec

from extproc.inspection.json import decode
from extproc.inspection.request import (
    MAX_CHOICES,
    PREFIX_CHARACTERS,
    InferenceRequest,
    RequestError,
    checked_output_limit,
    prefix_of,
)
from extproc.tokens import estimate_tokens
from headgate.policy.model import Protocol

_MESSAGE_TOKENS = 4
_IMAGE_TOKENS = 1024


class _Part(msgspec.Struct):
    type: str = "text"
    text: str | None = None


class _Message(msgspec.Struct):
    role: str | None = None
    content: str | list[_Part] | None = None
    tool_calls: msgspec.Raw = msgspec.Raw()


class _Common(msgspec.Struct):
    model: str
    stream: bool | None = None
    n: int | None = None
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    prompt_cache_key: str | None = None
    user: str | None = None


class _Chat(_Common):
    messages: list[_Message] = msgspec.field(default_factory=list)
    tools: list[msgspec.Raw] | None = None


class _Completion(_Common):
    prompt: msgspec.Raw = msgspec.Raw(b"null")


_CHAT = msgspec.json.Decoder(_Chat)
_COMPLETION = msgspec.json.Decoder(_Completion)
_PROMPT_SHAPES = (
    msgspec.json.Decoder(str),
    msgspec.json.Decoder(list[int]),
    msgspec.json.Decoder(list[str]),
    msgspec.json.Decoder(list[list[int]]),
)


def inspect_chat(body: bytes) -> InferenceRequest:
    """Read a chat/completions body."""
    chat = decode(body, _CHAT)
    if not chat.messages:
        raise RequestError("'messages' has to hold at least one message.", param="messages")
    texts, images = _contents(chat.messages)
    tools = chat.tools or []
    texts += [bytes(tool).decode("utf-8", "replace") for tool in tools]
    return _request(
        chat,
        prompt_bytes=sum(len(text.encode("utf-8", "surrogatepass")) for text in texts),
        prompt_tokens=sum(map(estimate_tokens, texts)) + _MESSAGE_TOKENS * len(chat.messages) + _IMAGE_TOKENS * images,
        messages=len(chat.messages),
        tools=len(tools),
        images=images,
        prompt_prefix=prefix_of(_opening(chat.messages)),
    )


def inspect_completion(body: bytes) -> InferenceRequest:
    """Read a completions body; `prompt` is text, token ids, or a list of either."""
    completion = decode(body, _COMPLETION)
    prompt = _prompt(bytes(completion.prompt))
    texts = [text for text in prompt if isinstance(text, str)]
    token_ids = sum(1 if isinstance(item, int) else len(item) for item in prompt if not isinstance(item, str))
    return _request(
        completion,
        prompt_bytes=sum(len(text.encode("utf-8", "surrogatepass")) for text in texts),
        prompt_tokens=sum(map(estimate_tokens, texts)) + token_ids,
        messages=len(texts) or 1,
        prompts=1 if prompt and isinstance(prompt[0], int) else len(prompt),
        prompt_prefix=prefix_of(texts[:1]) or bytes(completion.prompt)[:PREFIX_CHARACTERS].decode("utf-8", "replace"),
    )


def _opening(messages: list[_Message]) -> list[str]:
    """The texts up to the first of the user's: what every turn of a conversation begins with."""
    opening: list[_Message] = []
    for message in messages:
        opening.append(message)
        if message.role == "user":
            break
    return _contents(opening)[0]


def _contents(messages: list[_Message]) -> tuple[list[str], int]:
    texts: list[str] = []
    images = 0
    for message in messages:
        if isinstance(message.content, str):
            texts.append(message.content)
        else:
            parts = message.content or []
            texts += [part.text for part in parts if part.text is not None]
            images += sum(part.type == "image_url" for part in parts)
        texts.append(bytes(message.tool_calls).decode("utf-8", "replace"))
    return texts, images


def _prompt(raw: bytes) -> list[str] | list[int] | list[list[int]]:
    for shape in _PROMPT_SHAPES:
        try:
            value = shape.decode(raw)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            continue
        return [value] if isinstance(value, str) else value
    raise RequestError("'prompt' has to be text, token ids, or a list of either.", param="prompt")


def _request(
    common: _Common, *, prompt_bytes: int, prompt_tokens: int, prompt_prefix: str, prompts: int = 1, **counts: int
) -> InferenceRequest:
    limits = {
        field: checked_output_limit(value, field)
        for field, value in (
            ("max_completion_tokens", common.max_completion_tokens),
            ("max_tokens", common.max_tokens),
        )
        if value is not None
    }
    choices = 1 if common.n is None else common.n
    if not 1 <= choices <= MAX_CHOICES:
        raise RequestError(f"'n' has to be between 1 and {MAX_CHOICES}, not {choices}.", param="n")
    return InferenceRequest(
        protocol=Protocol.OPENAI,
        model=common.model,
        stream=bool(common.stream),
        prompt_bytes=prompt_bytes,
        prompt_tokens=prompt_tokens,
        # max_completion_tokens is the newer name and wins where both are sent.
        max_output_tokens=next(iter(limits.values()), None),
        output_limit_fields=tuple(limits),
        are_output_limits_equal=len(set(limits.values())) <= 1,
        choices=choices * max(1, prompts),
        session=common.prompt_cache_key or common.user or "",
        prompt_prefix=prompt_prefix,
        **counts,
    )
