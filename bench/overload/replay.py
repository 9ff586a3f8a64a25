"""The cluster alone, in virtual time: the same engines under the same load with no gateway, no sockets, no waiting.

Gives in a second or two what a run on the clock takes minutes for: how much the simulated cluster can carry.
"""

from __future__ import annotations

import heapq
import math
import random
from collections.abc import Sequence

from bench.overload.outcome import Ending, Outcome
from bench.overload.simulated_engine import EngineShape, SimulatedEngine, SimulatedSequence, flush_points
from bench.overload.workload import Arrival


class _Replay:
    def __init__(self, shape: EngineShape, replicas: int) -> None:
        self._random = random.Random(replicas)
        self._engines = [SimulatedEngine(shape) for _ in range(replicas)]
        self._homes: dict[SimulatedSequence, tuple[SimulatedEngine, Arrival]] = {}
        self._progress: dict[int, list[tuple[float, int]]] = {}
        self._impatient: list[tuple[float, int, SimulatedSequence]] = []

    def run(self, arrivals: Sequence[Arrival], seconds: float) -> list[Outcome]:
        for arrival in arrivals:
            self._advance(arrival.due_seconds)
            self._submit(arrival)
        self._advance(seconds)
        return [self._outcome(sequence, arrival) for sequence, (_, arrival) in self._homes.items()]

    def _advance(self, now: float) -> None:
        """Engines and hang-ups in the order in which they happen."""
        while True:
            engine = min(self._engines, key=lambda engine: engine.next_at or math.inf)
            engine_at = engine.next_at or math.inf
            patience_at = self._impatient[0][0] if self._impatient else math.inf
            if min(engine_at, patience_at) > now:
                return
            if engine_at <= patience_at:
                for sequence in engine.advance(engine_at):
                    self._progress[sequence.number].append((engine_at, sequence.produced_tokens))
            else:
                _, _, sequence = heapq.heappop(self._impatient)
                if sequence.first_token_at is None:
                    self._homes[sequence][0].abort(sequence, patience_at)

    def _submit(self, arrival: Arrival) -> None:
        answer = min(arrival.answer_tokens, arrival.max_tokens)
        sequence = SimulatedSequence(
            number=arrival.number,
            prompt_tokens=arrival.prompt_tokens,
            answer_tokens=answer,
            limit_tokens=arrival.max_tokens,
            arrived_at=arrival.due_seconds,
            flushes=flush_points(answer),
        )
        # Envoy's least-request: the better of two drawn at random, which may be the same one twice.
        engine = min(self._random.choices(self._engines, k=2), key=lambda engine: engine.running + engine.waiting)
        engine.submit(sequence)
        self._homes[sequence] = (engine, arrival)
        self._progress[arrival.number] = []
        heapq.heappush(self._impatient, (arrival.due_seconds + arrival.patience_seconds, arrival.number, sequence))

    def _outcome(self, sequence: SimulatedSequence, arrival: Arrival) -> Outcome:
        is_complete = sequence.produced_tokens == sequence.answer_tokens
        gave_up = sequence.ended_at is not None and not is_complete
        return Outcome(
            number=arrival.number,
            tier=arrival.tier,
            tenant=arrival.tenant,
            due_seconds=arrival.due_seconds,
            prompt_tokens=arrival.prompt_tokens,
            ending=Ending.COMPLETED if is_complete else Ending.GAVE_UP if gave_up else Ending.CUT,
            status=200,
            first_token_seconds=sequence.first_token_at,
            progress=self._progress[arrival.number],
        )


def replay(arrivals: Sequence[Arrival], shape: EngineShape, replicas: int, seconds: float) -> list[Outcome]:
    """What becomes of the load when Envoy's least-request spreads it; cut after `seconds`."""
    return _Replay(shape, replicas).run(arrivals, seconds)
