"""One request inside the engine: how far it has read its prompt, what it has written, and when it ends.

Knows nothing of slots, of time or of the other requests.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice

TokenIds = tuple[int, ...]

# Bad words can ban everything the generation would ever write; after this many it gives up and ends.
_MOST_REFUSED_IN_A_ROW = 1000


@dataclass(eq=False, kw_only=True)
class Generation:
    """One request inside the engine. `words` are the tokens it would write, in order, without end."""

    prompt_tokens: int
    max_output_tokens: int
    words: Iterator[int]
    end_id: int
    stop_words: tuple[TokenIds, ...] = ()
    bad_words: tuple[TokenIds, ...] = ()
    prefilled_tokens: int = 0
    output: list[int] = field(default_factory=list)
    is_finished: bool = False

    @property
    def is_in_context_phase(self) -> bool:
        """Whether the prompt is still being read."""
        return self.prefilled_tokens < self.prompt_tokens

    def write_token(self) -> None:
        """Append the next token, or finish at END, at a stop word, at the limit or when every word is banned."""
        token = self._next_allowed()
        if token is None or token == self.end_id:
            self.is_finished = True
            return
        self.output.append(token)
        self.is_finished = len(self.output) >= self.max_output_tokens or self._ends_with(self.stop_words)

    def _next_allowed(self) -> int | None:
        candidates = islice(self.words, _MOST_REFUSED_IN_A_ROW)
        return next((token for token in candidates if not self._would_end_with(self.bad_words, token)), None)

    def _would_end_with(self, phrases: tuple[TokenIds, ...], token: int) -> bool:
        return any(phrase[-1] == token and self._has_tail(phrase[:-1]) for phrase in phrases)

    def _ends_with(self, phrases: tuple[TokenIds, ...]) -> bool:
        return any(self._has_tail(phrase) for phrase in phrases)

    def _has_tail(self, phrase: TokenIds) -> bool:
        return not phrase or tuple(self.output[-len(phrase) :]) == phrase
