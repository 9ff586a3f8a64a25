"""A prompt that is text, token ids, or a list of either: of completions and of embeddings."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from msgspec.structs import replace

from extproc.inspection.parts import Tally
from extproc.inspection.request import PREFIX_CHARACTERS, Prompt, RequestError

_TOKEN_IDS = msgspec.json.Decoder(list[int])
_QUOTE, _BRACKET = b'"['
_LIST = msgspec.json.Decoder(list[msgspec.Raw])


def read_prompts(raw: msgspec.Raw, field: str, body: bytes) -> Prompt:
    """Read the value of `field` of the body; each prompt counts as a message.

    Raises:
        RequestError: it is neither text nor token ids nor a list of either.
    """
    tally, token_ids = Tally(), 0
    items = _items(raw, field)
    for item in items:
        if isinstance(item, int):
            token_ids += item
        else:
            tally.try_text(item)
    prompt = tally.prompt(body, overhead_tokens=token_ids, messages=len(items), opening=1)
    if tally.texts:
        return prompt
    # Token ids are told apart by how they are written.
    return replace(prompt, opening=(str(memoryview(raw)[:PREFIX_CHARACTERS], "utf-8", "replace"),))


def _items(raw: msgspec.Raw, field: str) -> Sequence[msgspec.Raw | int]:
    """Each prompt: raw text, or how many token ids it is."""
    if _first(raw) == _QUOTE:
        return [raw]
    try:
        items = _LIST.decode(raw)
        first = _first(items[0]) if items else 0
        if first == _BRACKET:
            return [len(_TOKEN_IDS.decode(item)) for item in items]
        if items and first != _QUOTE:
            return [len(_TOKEN_IDS.decode(raw))]
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise _wrong(field) from None
    if any(_first(item) != _QUOTE for item in items):
        raise _wrong(field)
    return items


def _first(raw: msgspec.Raw) -> int:
    return memoryview(raw)[0]


def _wrong(field: str) -> RequestError:
    return RequestError(f"'{field}' has to be text, token ids, or a list of either.", param=field)
