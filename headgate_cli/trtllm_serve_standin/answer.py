"""What the made-up model answers: the same request gets the same text, every time and in every process.

The text is one passage read in a circle; the prompt's checksum, the seed and the choice pick where reading starts.
A word with the space before it is one token. Left alone, an answer ends by itself ("stop") after half to one and a
half times the configured length. Temperature, penalties and the other sampling knobs change nothing.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass
from enum import StrEnum
from itertools import accumulate

from headgate_cli.trtllm_serve_standin.prompt import Prompt

_PASSAGE = """
This answer was not written by a model. It comes from a stand-in that keeps the time of a real engine, waits in a
real queue and gives back one word after another, so that everything in front of it can be tried on a machine
without a single accelerator. Imagine a small harbour at dusk. The lamps along the quay are lit from west to east,
and every boat that enters is given a berth, if one is free, by a keeper who has counted them all his life. When
none is left he raises a flag, and the boats outside drop their anchors and wait in the order in which they came.
Nobody shouts. Those who grow tired of waiting turn round and sail away, and the keeper strikes them from his list
at once, for a berth that is held for nobody is the only thing he cannot forgive.
"""
_PIECES = tuple(f" {word}" for word in _PASSAGE.split())


class FinishReason(StrEnum):
    """Why an answer ended."""

    STOP = "stop"
    LENGTH = "length"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """What of a request's parameters shapes its answer. `max_tokens` is at least 1."""

    max_tokens: int
    min_tokens: int = 0
    seed: int = 0
    stop: tuple[str, ...] = ()
    include_stop: bool = False
    ignore_eos: bool = False


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole answer, known before its first token is due: one piece of text and one id per token."""

    pieces: tuple[str, ...]
    token_ids: tuple[int, ...]
    finish_reason: FinishReason
    stop_reason: str | None = None

    @property
    def tokens(self) -> int:
        """How many tokens the answer counts for."""
        return len(self.token_ids)


def compose(prompt: Prompt, sampling: Sampling, *, choice: int, answer_tokens: int) -> Answer:
    """Return the answer to a prompt; `choice` tells the n answers to one prompt apart."""
    checksum = prompt.checksum + sampling.seed + choice
    ends_after = max(1, sampling.min_tokens, answer_tokens // 2 + checksum % answer_tokens)
    ends_itself = ends_after < sampling.max_tokens and not sampling.ignore_eos
    token_ids = _read(checksum % len(_PIECES), ends_after if ends_itself else sampling.max_tokens)
    pieces = [_PIECES[token_id] for token_id in token_ids]
    pieces[0] = pieces[0].lstrip()
    answer = Answer(tuple(pieces), token_ids, FinishReason.STOP if ends_itself else FinishReason.LENGTH)
    return _stopped(answer, sampling) if sampling.stop else answer


def _read(start: int, tokens: int) -> tuple[int, ...]:
    return tuple(position % len(_PIECES) for position in range(start, start + tokens))


def _stopped(answer: Answer, sampling: Sampling) -> Answer:
    """End the answer where the first stop string is complete; its text is left out unless asked for."""
    text = "".join(answer.pieces)
    found = [(text.index(stop), stop) for stop in sampling.stop if stop and stop in text]
    if not found:
        return answer
    at, stop = min(found)
    complete_at = at + len(stop)
    ends = list(accumulate(len(piece) for piece in answer.pieces))
    tokens = bisect_left(ends, complete_at) + 1
    kept = complete_at if sampling.include_stop else at
    pieces = [
        piece[: max(0, kept - end + len(piece))] for piece, end in zip(answer.pieces[:tokens], ends, strict=False)
    ]
    return Answer(tuple(pieces), answer.token_ids[:tokens], FinishReason.STOP, stop)
