"""Anthropic's messages (https://docs.claude.com/en/api/messages)."""

from __future__ import annotations

import msgspec

from extproc.inspection.chat import MESSAGE_TOKENS, USER
from extproc.inspection.json import decode
from extproc.inspection.openai import Generating, build
from extproc.inspection.parts import Tally
from extproc.inspection.request import InferenceRequest, RequestError
from extproc.inspection.target import Operation
from headgate.policy.model import Protocol


class _Metadata(msgspec.Struct):
    user_id: str | None = None


class _Message(msgspec.Struct):
    role: msgspec.Raw = msgspec.Raw()
    content: msgspec.Raw = msgspec.Raw()


class _Messages(Generating):
    LIMITS = ("max_tokens",)
    messages: list[_Message] = msgspec.field(default_factory=list)
    system: msgspec.Raw = msgspec.Raw()
    tools: list[msgspec.Raw] | None = None
    max_tokens: int | None = None
    metadata: _Metadata | None = None


_MESSAGES = msgspec.json.Decoder(_Messages)


def inspect_messages(body: bytes) -> InferenceRequest:
    """Read a messages body; `max_tokens` is required there."""
    messages = decode(body, _MESSAGES)
    if not messages.messages:
        raise RequestError("'messages' has to hold at least one message.", param="messages")
    if messages.max_tokens is None:
        raise RequestError("'max_tokens' is required.", param="max_tokens")
    tally, opening = Tally(), None
    tally.add_content(messages.system, "system")
    for number, message in enumerate(messages.messages):
        tally.add_content(message.content, f"messages[{number}].content")
        if opening is None and message.role == USER:
            opening = len(tally.texts)
    tools = messages.tools or []
    for tool in tools:
        tally.add_json(tool)
    prompt = tally.prompt(
        body,
        overhead_tokens=MESSAGE_TOKENS * len(messages.messages),
        messages=len(messages.messages),
        opening=opening,
        tools=len(tools),
    )
    session = messages.metadata.user_id if messages.metadata else None
    return build(Operation.MESSAGES, messages, prompt, protocol=Protocol.ANTHROPIC, session=session)
