"""One answer in the making: where it stands between its arrival and its last token."""

from __future__ import annotations

from dataclasses import dataclass

from headgate_cli.trtllm_serve_standin.answer import Answer
from headgate_cli.trtllm_serve_standin.prompt import Prompt


@dataclass(slots=True, eq=False, kw_only=True)
class Sequence:
    """What the engine knows of one answer. Times are those passed to the engine; None means not yet."""

    prompt: Prompt
    answer: Answer
    arrived_at: float
    admitted_at: float | None = None
    first_token_at: float | None = None
    finished_at: float | None = None
    cached_tokens: int = 0
    prefill_tokens_left: float = 0.0
    produced_tokens: int = 0

    @property
    def held_tokens(self) -> int:
        """Prompt and answer so far: what fills cache blocks now."""
        return self.prompt.tokens + self.produced_tokens

    @property
    def total_tokens(self) -> int:
        """Prompt and whole answer: what the sequence comes to hold if nobody aborts it."""
        return self.prompt.tokens + self.answer.tokens

    @property
    def seconds_per_token(self) -> float | None:
        """Mean time per token after the first; None while unfinished and for a single token."""
        if self.first_token_at is None or self.finished_at is None or self.answer.tokens == 1:
            return None
        return (self.finished_at - self.first_token_at) / (self.answer.tokens - 1)
