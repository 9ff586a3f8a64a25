"""What the stand-in engine writes: the same sentences for the same prompt and seed, without end.

Deterministic, so that tests and demos can compare answers; it says nothing about the prompt.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from itertools import chain, cycle

from stand_in import tokenizer

_SENTENCES = (
    " The water stands high behind the gate tonight.",
    " One boat waits for its turn and the next one comes round the bend.",
    " The keeper reads each name and finds the lane that suits the load.",
    " A small boat may pass at once while a long one takes the deep lane.",
    " When every lane is full the keeper says so and names the time to come back.",
    " No boat that paid for the first place is left to wait behind the rest.",
    " The wheel turns slow and the gate rises an inch at a time.",
    " What goes through is counted and the count is set down in the book.",
)
_TOKENS = tuple(tuple(tokenizer.encode(sentence.encode())) for sentence in _SENTENCES)


def story_for(prompt_ids: Sequence[int], seed: int = 0) -> Iterator[int]:
    """Tokens of the story from the sentence that this prompt and seed pick."""
    prompt = b"".join(token_id.to_bytes(4, "little", signed=True) for token_id in prompt_ids)
    start = (zlib.crc32(prompt) + seed) % len(_TOKENS)
    return cycle(chain.from_iterable(_TOKENS[start:] + _TOKENS[:start]))
