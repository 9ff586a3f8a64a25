"""A prompt that is text, token ids, or a list of either: of completions and of embeddings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from extproc.inspection.parts import Tally
from extproc.inspection.request import PREFIX_CHARACTERS, RequestError

_TOKEN_IDS = msgspec.json.Decoder(list[int])
_QUOTE, _BRACKET = b'"['
_LIST = msgspec.json.Decoder(list[msgspec.Raw])


@dataclass(frozen=True, slots=True)
class Prompts:
    """How many prompts there are, how big all of them are, how the first begins, and what they say."""

    total: int
    texts: int
    prompt_bytes: int
    prompt_tokens: int
    opening: tuple[str | msgspec.Raw, ...]
    pieces: tuple[msgspec.Raw, ...]
    token_ids: int


def read_prompts(raw: msgspec.Raw, field: str, body: bytes) -> Prompts:
    """Read the value of `field` of the body.

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
    # Token ids are told apart by how they are written.
    start = memoryview(raw)[:PREFIX_CHARACTERS]
    opening = tally.opening(1) if tally.texts else (str(start, "utf-8", "replace"),)
    prompt_bytes = tally.prompt_bytes
    return Prompts(
        len(items),
        len(tally.texts),
        prompt_bytes,
        tally.tokens(body, prompt_bytes) + token_ids,
        opening,
        tally.pieces(),
        token_ids,
    )


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
