"""OpenAI's responses (https://platform.openai.com/docs/api-reference/responses)."""

from __future__ import annotations

import msgspec

from extproc.inspection.chat import MESSAGE_TOKENS, USER
from extproc.inspection.json import decode
from extproc.inspection.openai import Generating, Limit, build
from extproc.inspection.parts import Tally
from extproc.inspection.request import InferenceRequest, RequestError
from extproc.inspection.target import Operation


class _Item(msgspec.Struct):
    """A message, a tool call, its output, or something newer: whatever text it has counts."""

    role: msgspec.Raw = msgspec.Raw()
    content: msgspec.Raw = msgspec.Raw()
    output: msgspec.Raw = msgspec.Raw()
    arguments: msgspec.Raw = msgspec.Raw()
    summary: msgspec.Raw = msgspec.Raw()


class _Responses(Generating):
    LIMITS = ("max_output_tokens",)
    input: msgspec.Raw = msgspec.Raw(b"null")
    instructions: msgspec.Raw = msgspec.Raw()
    tools: list[msgspec.Raw] | None = None
    text: msgspec.Raw = msgspec.Raw()
    max_output_tokens: Limit = msgspec.UNSET


_RESPONSES = msgspec.json.Decoder(_Responses)
_BRACKET = ord("[")
_ITEMS = msgspec.json.Decoder(list[_Item])


def inspect_responses(body: bytes) -> InferenceRequest:
    """Read a responses body. What `previous_response_id` stands for is only known to the model server."""
    responses = decode(body, _RESPONSES)
    tally = Tally()
    tally.add_content(responses.instructions, "instructions")
    messages, opening = _add_input(tally, responses.input)
    tools = responses.tools or []
    for tool in tools:
        tally.add_json(tool)
    tally.add_json(responses.text)
    overhead_tokens = MESSAGE_TOKENS * messages
    prompt = tally.prompt(body, overhead_tokens=overhead_tokens, messages=messages, opening=opening, tools=len(tools))
    return build(Operation.RESPONSES, responses, prompt)


def _add_input(tally: Tally, raw: msgspec.Raw) -> tuple[int, int | None]:
    """Add the input; how many items it is, and with how many texts the first of the user's ends."""
    opening = None
    if tally.try_text(raw):
        return 1, None
    if memoryview(raw)[0] != _BRACKET:
        raise RequestError("'input' has to be text or a list of items.", param="input")
    items = decode(raw, _ITEMS, "input")
    if not items:
        raise RequestError("'input' has to hold at least one item.", param="input")
    for number, item in enumerate(items):
        for name in ("content", "output", "summary"):
            value: msgspec.Raw = getattr(item, name)
            if value:
                tally.add_content(value, f"input[{number}].{name}")
        tally.add_json(item.arguments)
        if opening is None and item.role == USER:
            opening = len(tally.texts)
    return len(items), opening
