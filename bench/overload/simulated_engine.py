"""A SIMULATION of an LLM engine: in-flight batching with chunked prefill on one GPU. Nothing here computes a model.

An iteration gives every generating sequence a token and computes a chunk of the oldest unfinished prompts; it lasts
as long as both take, so long prompts slow everybody's tokens and a full batch slows all. Who finds no slot or no
cache waits, first in first out and without limit, as in trtllm-serve. Time is simulated seconds, passed in.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineShape:
    """How big and fast one replica is. The defaults are an 8B model on an H100, see README.md.

    Attributes:
        slots: sequences in the batch at most.
        kv_tokens: key/value cache; a sequence is promised prompt and output limit when it gets its slot.
        step_seconds: an iteration with an empty batch; each generating sequence adds `step_per_sequence_seconds`.
        prefill_per_token_seconds: what a prompt token adds to the iteration that computes it.
        chunk_tokens: prompt tokens per iteration at most.
    """

    slots: int = 48
    kv_tokens: int = 96_000
    step_seconds: float = 0.010
    step_per_sequence_seconds: float = 0.0001
    prefill_per_token_seconds: float = 0.00015
    chunk_tokens: int = 512


@dataclass(slots=True, eq=False, kw_only=True)
class SimulatedSequence:
    """One answer in the making. Times are simulated seconds; None is "not yet".

    Attributes:
        number: the client's number of the request.
        limit_tokens: the output limit, which decides how much cache is promised.
        flushes: tokens after which the stream is written, in order; the last is the answer's length.
    """

    number: int
    prompt_tokens: int
    answer_tokens: int
    limit_tokens: int
    arrived_at: float
    flushes: tuple[int, ...]
    admitted_at: float | None = None
    first_token_at: float | None = None
    ended_at: float | None = None
    produced_tokens: int = 0
    prefill_left: int = field(init=False)

    def __post_init__(self) -> None:
        self.prefill_left = self.prompt_tokens

    @property
    def cache_tokens(self) -> int:
        """What is promised to it for as long as it has a slot."""
        return self.prompt_tokens + max(self.limit_tokens, self.answer_tokens)


def flush_points(answer_tokens: int, flushes: int = 4) -> tuple[int, ...]:
    """After which tokens a stream is written: the first, the last, and evenly between."""
    gaps = max(1, flushes - 1)
    return tuple(sorted({1, *(max(1, answer_tokens * part // gaps) for part in range(1, gaps + 1))}))


class SimulatedEngine:
    """Slots, cache, a queue, and a clock that only moves when told."""

    def __init__(self, shape: EngineShape) -> None:
        self.shape = shape
        self.max_concurrency = 0
        self.tokens_served = 0
        self._waiting: OrderedDict[SimulatedSequence, None] = OrderedDict()
        self._prefilling: OrderedDict[SimulatedSequence, None] = OrderedDict()
        self._generating: dict[SimulatedSequence, None] = {}
        self._chunks: dict[SimulatedSequence, int] = {}
        self._stepping: list[SimulatedSequence] = []
        self._cache_used = 0
        self._ends_at: float | None = None

    @property
    def next_at(self) -> float | None:
        """When the iteration under way ends; None while idle."""
        return self._ends_at

    @property
    def running(self) -> int:
        """Sequences that have a slot."""
        return len(self._prefilling) + len(self._generating)

    @property
    def waiting(self) -> int:
        """Sequences that have none yet."""
        return len(self._waiting)

    def submit(self, sequence: SimulatedSequence) -> None:
        """Queue a sequence at its `arrived_at`; it starts at once if there is room. Call `advance` up to then first.

        Raises:
            ValueError: it can never fit the cache.
        """
        if sequence.cache_tokens > self.shape.kv_tokens:
            raise ValueError(f"{sequence.cache_tokens} tokens can never fit {self.shape.kv_tokens}")
        self._waiting[sequence] = None
        self._admit(sequence.arrived_at)
        if self._ends_at is None:
            self._begin(sequence.arrived_at)

    def abort(self, sequence: SimulatedSequence, now: float) -> None:
        """The client has gone: its slot is free at once. A finished sequence is left alone."""
        if sequence.ended_at is not None:
            return
        sequence.ended_at = now
        if sequence in self._waiting:
            del self._waiting[sequence]
        else:
            self._leave(sequence)
        self._admit(now)

    def advance(self, now: float) -> list[SimulatedSequence]:
        """Run every iteration that ends by now; who reached a flush point, once per point, in order."""
        flushed: list[SimulatedSequence] = []
        while self._ends_at is not None and self._ends_at <= now:
            ended_at = self._ends_at
            flushed += self._finish(ended_at)
            self._admit(ended_at)
            self._begin(ended_at)
        return flushed

    def _admit(self, now: float) -> None:
        while self._waiting and self.running < self.shape.slots:
            sequence = next(iter(self._waiting))
            if self._cache_used + sequence.cache_tokens > self.shape.kv_tokens:
                return
            del self._waiting[sequence]
            self._cache_used += sequence.cache_tokens
            sequence.admitted_at = now
            self._prefilling[sequence] = None
            self.max_concurrency = max(self.max_concurrency, self.running)

    def _begin(self, now: float) -> None:
        """Choose who takes part in the next iteration, and how long it lasts."""
        self._chunks, self._stepping = {}, list(self._generating)
        if not self.running:
            self._ends_at = None
            return
        left = self.shape.chunk_tokens
        for sequence in self._prefilling:
            taken = min(left, sequence.prefill_left)
            self._chunks[sequence] = taken
            left -= taken
            if not left:
                break
        self._ends_at = now + self._duration(self.shape.chunk_tokens - left)

    def _duration(self, prompt_tokens: int) -> float:
        shape = self.shape
        steps = shape.step_seconds + shape.step_per_sequence_seconds * len(self._stepping)
        return steps + shape.prefill_per_token_seconds * prompt_tokens

    def _finish(self, ended_at: float) -> list[SimulatedSequence]:
        flushed = [sequence for sequence in self._stepping if self._produce(sequence, ended_at)]
        for sequence, taken in self._chunks.items():
            if sequence.ended_at is not None:
                continue  # its client left meanwhile
            sequence.prefill_left -= taken
            if not sequence.prefill_left:
                del self._prefilling[sequence]
                self._generating[sequence] = None
                sequence.first_token_at = ended_at
                self._produce(sequence, ended_at)
                flushed.append(sequence)
        return flushed

    def _produce(self, sequence: SimulatedSequence, now: float) -> bool:
        """One more token; True when it is one to write the stream after."""
        if sequence.ended_at is not None:
            return False
        sequence.produced_tokens += 1
        self.tokens_served += 1
        if sequence.produced_tokens == sequence.answer_tokens:
            sequence.ended_at = now
            self._leave(sequence)
            return True
        return sequence.produced_tokens in sequence.flushes

    def _leave(self, sequence: SimulatedSequence) -> None:
        self._cache_used -= sequence.cache_tokens
        self._prefilling.pop(sequence, None)
        self._generating.pop(sequence, None)
