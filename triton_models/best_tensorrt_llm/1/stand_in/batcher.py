"""An inflight batcher reduced to its bookkeeping: who holds a slot, who waits, who gets a token this iteration.

One call of `admit` and one of `advance` are one iteration; the caller decides how long that lasts.
Knows no Triton, no clock and no thread. Policy is TensorRT-LLM's GUARANTEED_NO_EVICT: a request starts only when a
slot and all the KV cache blocks it can ever need are free, so a running request is never paused.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from stand_in.generation import Generation


class RequestRefused(Exception):  # noqa: N818  (a refusal, not a fault of the engine)
    """Raised when a request can never run here, with the reason for the client."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What the engine was built for.

    Attributes:
        prefill_tokens_per_iteration: prompt tokens all requests together can process in one iteration.
        kv_cache_blocks: blocks of `tokens_per_block` tokens, shared by all running requests.
    """

    slots: int
    prefill_tokens_per_iteration: int
    max_input_tokens: int
    kv_cache_blocks: int
    tokens_per_block: int = 32


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """The numbers TensorRT-LLM reports about one iteration (its IterationStats, in our words)."""

    iteration: int
    active: int
    scheduled: int
    context: int
    generation: int
    context_tokens: int
    waiting: int
    used_blocks: int


class Batcher:
    """Slots, a waiting line, and the KV cache ledger."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self._waiting: deque[Generation] = deque()
        self._running: dict[Generation, int] = {}
        self._iteration = 0
        self._context_tokens = 0

    @property
    def is_idle(self) -> bool:
        """Whether nobody runs and nobody waits."""
        return not self._running and not self._waiting

    def generations(self) -> list[Generation]:
        """Everyone inside, running first, each group in order of arrival."""
        return [*self._running, *self._waiting]

    def submit(self, generation: Generation) -> None:
        """Put a request at the end of the waiting line.

        Raises:
            RequestRefused: it asks for nothing, or for more than an empty engine holds.
        """
        if generation.prompt_tokens < 1:
            raise RequestRefused("input_ids must not be empty")
        if generation.max_output_tokens < 1:
            raise RequestRefused(
                f"request_output_len (max_tokens) must be greater than 0, got {generation.max_output_tokens}"
            )
        if generation.prompt_tokens > self.limits.max_input_tokens:
            raise RequestRefused(
                f"Prompt length ({generation.prompt_tokens}) exceeds maximum input length"
                f" ({self.limits.max_input_tokens})"
            )
        if self._blocks_for(generation) > self.limits.kv_cache_blocks:
            raise RequestRefused(
                f"prompt and max_tokens need {self._blocks_for(generation)} KV cache blocks,"
                f" there are {self.limits.kv_cache_blocks}"
            )
        self._waiting.append(generation)

    def remove(self, generation: Generation) -> None:
        """Take a request out, wherever it is; its slot and blocks are free for the next `admit`."""
        if self._running.pop(generation, None) is None and generation in self._waiting:
            self._waiting.remove(generation)

    def admit(self) -> list[Generation]:
        """Move requests from the line into free slots, strictly in order; return those that moved."""
        admitted: list[Generation] = []
        while self._waiting and self._fits(self._waiting[0]):
            generation = self._waiting.popleft()
            self._running[generation] = self._blocks_for(generation)
            admitted.append(generation)
        return admitted

    def advance(self) -> list[Generation]:
        """Run one iteration; return those that wrote a token or finished. Finished ones have left their slot."""
        self._iteration += 1
        self._context_tokens = 0
        stepped = [generation for generation in self._running if self._has_read_prompt(generation)]
        for generation in stepped:
            generation.write_token()
            if generation.is_finished:
                del self._running[generation]
        return stepped

    def snapshot(self) -> Snapshot:
        """The state after the last `admit` or `advance`."""
        context = sum(generation.is_in_context_phase for generation in self._running)
        return Snapshot(
            iteration=self._iteration,
            active=len(self._running),
            scheduled=len(self._running),
            context=context,
            generation=len(self._running) - context,
            context_tokens=self._context_tokens,
            waiting=len(self._waiting),
            used_blocks=sum(self._running.values()),
        )

    def _has_read_prompt(self, generation: Generation) -> bool:
        budget = self.limits.prefill_tokens_per_iteration - self._context_tokens
        step = min(budget, generation.prompt_tokens - generation.prefilled_tokens)
        generation.prefilled_tokens += step
        self._context_tokens += step
        return not generation.is_in_context_phase

    def _fits(self, generation: Generation) -> bool:
        free_blocks = self.limits.kv_cache_blocks - sum(self._running.values())
        return len(self._running) < self.limits.slots and self._blocks_for(generation) <= free_blocks

    def _blocks_for(self, generation: Generation) -> int:
        return -(-(generation.prompt_tokens + generation.max_output_tokens) // self.limits.tokens_per_block)
