"""The simulated engine: in-flight batching over a fixed number of slots, one token per sequence and iteration.

Time is passed in and nothing waits. An iteration lasts 1 / tokens_per_second. Prompts are computed in the order of
arrival out of one budget of prompt tokens per iteration; the iteration that computes the last of a prompt gives its
first token. Who finds no slot waits, first in, first out and without limit, as in the real one. A late call runs
every iteration that was due, so rates do not drift.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from dataclasses import dataclass

from headgate_cli.trtllm_serve_standin.answer import Answer
from headgate_cli.trtllm_serve_standin.iteration import Iteration, IterationStats
from headgate_cli.trtllm_serve_standin.kv_cache import KvCache
from headgate_cli.trtllm_serve_standin.prompt import Prompt
from headgate_cli.trtllm_serve_standin.sequence import Sequence

_KEPT_ITERATIONS = 1000  # the real engine's default of iter_stats_max_iterations


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineLimits:
    """How big and how fast the engine is; `tokens_per_second` is per sequence, prefill is shared by all."""

    slots: int = 16
    tokens_per_second: float = 50.0
    prefill_tokens_per_second: float = 20_000.0
    max_seq_len: int = 131_072
    kv_blocks: int = 32_768
    tokens_per_block: int = 32

    @property
    def max_sequence_tokens(self) -> int:
        """The longest sequence, prompt and answer, that can ever run."""
        return min(self.max_seq_len, self.kv_blocks * self.tokens_per_block)


class Engine:
    """Slots, a queue, and a clock that only moves when told."""

    def __init__(self, limits: EngineLimits) -> None:
        self.limits = limits
        self._cache = KvCache(max_blocks=limits.kv_blocks, tokens_per_block=limits.tokens_per_block)
        self._period_seconds = 1.0 / limits.tokens_per_second
        self._running: dict[Sequence, None] = {}
        self._waiting: OrderedDict[Sequence, None] = OrderedDict()
        self._started_at = 0.0
        self._next_at: float | None = None
        self._iterations_total = 0
        self._history: deque[IterationStats] = deque(maxlen=_KEPT_ITERATIONS)
        self._progressed: dict[Sequence, None] = {}

    @property
    def next_at(self) -> float | None:
        """When the iteration under way ends; None while there is nothing to do."""
        return self._next_at

    def submit(self, prompt: Prompt, answer: Answer, now: float) -> Sequence:
        """Start a sequence, or queue it; ValueError if it is longer than `limits.max_sequence_tokens`."""
        sequence = Sequence(prompt=prompt, answer=answer, arrived_at=now)
        if sequence.total_tokens > self.limits.max_sequence_tokens:
            raise ValueError(f"{sequence.total_tokens} tokens can never run here")
        self._run_due(now)
        self._waiting[sequence] = None
        if self._next_at is None:
            self._started_at, self._next_at = now, now + self._period_seconds
        self._admit(now)
        return sequence

    def abort(self, sequence: Sequence, now: float) -> None:
        """Forget a sequence wherever it is; its slot is free at once. A finished one is left alone."""
        self._run_due(now)
        if sequence in self._waiting:
            del self._waiting[sequence]
        elif sequence in self._running:
            self._leave(sequence)
        self._admit(now)
        if not self._running:
            self._next_at = None

    def advance(self, now: float) -> list[Sequence]:
        """Run every iteration due by now; return who has new tokens since the last call, each once."""
        self._run_due(now)
        progressed = list(self._progressed)
        self._progressed.clear()
        return progressed

    def drain_stats(self) -> list[IterationStats]:
        """Return the iterations since the last call, oldest first, and forget them."""
        drained = list(self._history)
        self._history.clear()
        return drained

    def stats(self) -> IterationStats:
        """Return the state now, in the form of an iteration that did nothing."""
        return self._describe(Iteration())

    def _run_due(self, now: float) -> None:
        # Also before every arrival and departure: else a late call would let them happen before their time.
        while self._next_at is not None and self._next_at <= now:
            self._progressed.update(dict.fromkeys(self._iterate(self._next_at)))

    def _admit(self, now: float) -> None:
        while self._waiting and len(self._running) < self.limits.slots:
            sequence = next(iter(self._waiting))
            if not self._cache.admit(sequence):
                return
            del self._waiting[sequence]
            sequence.admitted_at = now
            sequence.prefill_tokens_left = sequence.prompt.tokens - sequence.cached_tokens
            self._running[sequence] = None

    def _leave(self, sequence: Sequence) -> None:
        del self._running[sequence]
        self._cache.release(sequence)

    def _iterate(self, ended_at: float) -> list[Sequence]:
        iteration = Iteration(self.limits.prefill_tokens_per_second * self._period_seconds)
        progressed = [sequence for sequence in tuple(self._running) if self._step(sequence, iteration, ended_at)]
        self._admit(ended_at)
        self._iterations_total += 1
        self._history.append(self._describe(iteration))
        self._started_at = ended_at
        self._next_at = ended_at + self._period_seconds if self._running else None
        return progressed

    def _step(self, sequence: Sequence, iteration: Iteration, ended_at: float) -> bool:
        """Let one sequence take part in an iteration; True if that gave it a token."""
        if sequence.admitted_at is None or sequence.admitted_at > self._started_at:
            return False  # came while the iteration was under way: takes part in the next
        if sequence.prefill_tokens_left == 0:
            iteration.generation_requests += 1
        elif not self._prefill(sequence, iteration):
            return False
        self._produce(sequence, iteration, ended_at)
        return True

    def _prefill(self, sequence: Sequence, iteration: Iteration) -> bool:
        """Compute as much of the prompt as the iteration's budget allows; True once it is done."""
        taken = min(iteration.prefill_tokens_left, sequence.prefill_tokens_left)
        if taken > 0:
            iteration.prefill_tokens_left -= taken
            iteration.context_tokens += taken
            iteration.context_requests += 1
            sequence.prefill_tokens_left -= taken
        if sequence.prefill_tokens_left > 0:
            return False
        self._cache.remember(sequence.prompt)
        return True

    def _produce(self, sequence: Sequence, iteration: Iteration, ended_at: float) -> None:
        sequence.produced_tokens += 1
        if sequence.first_token_at is None:
            sequence.first_token_at = ended_at
        if sequence.produced_tokens == sequence.answer.tokens:
            sequence.finished_at = ended_at
            self._leave(sequence)
            iteration.completed_requests += 1

    def _describe(self, iteration: Iteration) -> IterationStats:
        return IterationStats(
            iter=self._iterations_total,
            iter_latency_ms=self._period_seconds * 1000,
            num_active_requests=len(self._running),
            num_queued_requests=len(self._waiting),
            num_completed_requests=iteration.completed_requests,
            max_num_active_requests=self.limits.slots,
            gpu_mem_usage=0,
            kv_cache_stats=self._cache.stats(self._running),
            inflight_batching_stats=iteration.batching(),
        )
