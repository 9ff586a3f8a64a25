"""OpenAI's chat/completions (https://platform.openai.com/docs/api-reference/chat)."""

from __future__ import annotations

import msgspec

from extproc.inspection.json import decode
from extproc.inspection.openai import Generating, Limit, build
from extproc.inspection.parts import Tally
from extproc.inspection.request import InferenceRequest, RequestError
from extproc.inspection.target import Operation

_OPERATION = Operation.CHAT
MESSAGE_TOKENS = 4
"""What a chat template puts around a message."""
USER = msgspec.Raw(b'"user"')
"""The role, as JSON: what follows the first text of the user's is new at every turn."""


class _Message(msgspec.Struct, gc=False):
    role: msgspec.Raw = msgspec.Raw()
    content: msgspec.Raw = msgspec.Raw()
    tool_calls: msgspec.Raw = msgspec.Raw()


class _Chat(Generating, gc=False):
    # max_completion_tokens is the newer name and wins where both are sent.
    LIMITS = ("max_completion_tokens", "max_tokens")
    messages: list[_Message] = msgspec.field(default_factory=list)
    tools: list[msgspec.Raw] | None = None
    functions: list[msgspec.Raw] | None = None
    response_format: msgspec.Raw = msgspec.Raw()
    n: int | None = None
    max_tokens: Limit = msgspec.UNSET
    max_completion_tokens: Limit = msgspec.UNSET


_CHAT = msgspec.json.Decoder(_Chat)


def inspect_chat(body: bytes) -> InferenceRequest:
    """Read a chat/completions body. Tools count by their schemas, an output schema too: the model reads them."""
    chat = decode(body, _CHAT)
    if not chat.messages:
        raise RequestError("'messages' has to hold at least one message.", param="messages")
    tally, opening = Tally(), None
    for number, message in enumerate(chat.messages):
        if not tally.try_text(message.content):
            tally.add_content(message.content, f"messages[{number}].content")
        if message.tool_calls:
            tally.add_json(message.tool_calls)
        if opening is None and message.role == USER:
            opening = len(tally.texts)
    tools = chat.tools or []
    if chat.functions:
        tools = tools + chat.functions
    for tool in tools:
        tally.add_json(tool)
    if chat.response_format:
        tally.add_json(chat.response_format)
    messages = len(chat.messages)
    overhead_tokens = MESSAGE_TOKENS * messages
    prompt = tally.prompt(body, overhead_tokens=overhead_tokens, messages=messages, opening=opening, tools=len(tools))
    return build(_OPERATION, chat, prompt, n=chat.n)
