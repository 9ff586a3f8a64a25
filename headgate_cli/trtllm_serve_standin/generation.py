"""The sequences of one HTTP request, followed token by token while the engine works on them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass

from headgate_cli.trtllm_serve_standin.answer import FinishReason
from headgate_cli.trtllm_serve_standin.sequence import Sequence


class EngineStopped(Exception):  # noqa: N818  (an event, not a fault)
    """Raised to whoever follows a generation when the server shuts down."""


@dataclass(frozen=True, slots=True)
class Delta:
    """One new token of one sequence; the reasons are set on its last token only."""

    sequence_index: int
    text: str
    token_id: int
    completion_tokens: int
    finish_reason: FinishReason | None = None
    stop_reason: str | None = None


class Generation:
    """What a request waits for. `abort` must be called once the request is over, however it ended."""

    def __init__(self, sequences: tuple[Sequence, ...], abort: Callable[[Generation], None]) -> None:
        self.sequences = sequences
        self._abort = abort
        self._changed = asyncio.Event()
        self._stopped = False

    def wake(self) -> None:
        """Tell the follower that a sequence has new tokens."""
        self._changed.set()

    def stop(self) -> None:
        """Tell the follower that there will be no more tokens."""
        self._stopped = True
        self._changed.set()

    def abort(self) -> None:
        """Give back whatever the sequences still hold."""
        self._abort(self)

    async def deltas(self) -> AsyncGenerator[list[Delta]]:
        """Yield new tokens until every sequence is finished: all there are at that moment, one delta each.

        A follower that lags behind the engine gets several at once; it never misses or merges any.
        """
        seen = [0] * len(self.sequences)
        while any(told < sequence.answer.tokens for told, sequence in zip(seen, self.sequences, strict=True)):
            await self._changed.wait()
            self._changed.clear()
            if self._stopped:
                raise EngineStopped
            news = [delta for index in range(len(seen)) for delta in self._news(index, seen[index])]
            seen = [sequence.produced_tokens for sequence in self.sequences]
            yield news

    def _news(self, index: int, seen: int) -> list[Delta]:
        sequence = self.sequences[index]
        return [_delta(index, sequence, position) for position in range(seen, sequence.produced_tokens)]


def _delta(index: int, sequence: Sequence, position: int) -> Delta:
    answer = sequence.answer
    text, token_id = answer.pieces[position], answer.token_ids[position]
    if position + 1 < answer.tokens:
        return Delta(index, text, token_id, position + 1)
    return Delta(index, text, token_id, position + 1, answer.finish_reason, answer.stop_reason)
