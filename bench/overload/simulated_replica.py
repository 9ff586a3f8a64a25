"""The SIMULATED engine on the event loop's clock: one timer for all sequences, and news to those who follow them.

Simulated time runs `time_factor` times as fast as the clock. Knows no sockets.
"""

from __future__ import annotations

import asyncio
from typing import Protocol

from bench.overload.record import ReplicaRecord, SequenceRecord
from bench.overload.simulated_answer import Wanted
from bench.overload.simulated_engine import EngineShape, SimulatedEngine, SimulatedSequence


class Follower(Protocol):
    """Whoever waits for an answer."""

    def on_tokens(self, sequence: SimulatedSequence) -> None:
        """New tokens are there; the last when `ended_at` is set."""


class Replica:
    """One replica of the cluster; everything on one event loop."""

    def __init__(self, shape: EngineShape, time_factor: float) -> None:
        self._engine = SimulatedEngine(shape)
        self._factor = time_factor
        self._followers: dict[SimulatedSequence, Follower] = {}
        self._ended: list[SimulatedSequence] = []
        self._timer: asyncio.TimerHandle | None = None
        self._loop = asyncio.get_running_loop()

    def start(self, wanted: Wanted, follower: Follower) -> SimulatedSequence:
        """Hand a request to the engine.

        Raises:
            ValueError: it can never fit.
        """
        self._run()
        sequence = wanted.sequence(self._now())
        self._engine.submit(sequence)
        self._followers[sequence] = follower
        self._set_timer()
        return sequence

    def abort(self, sequence: SimulatedSequence) -> None:
        """Nobody follows it any more: its slot is free at once."""
        if self._followers.pop(sequence, None) is None:
            return
        self._run()
        self._engine.abort(sequence, self._now())
        self._ended.append(sequence)
        self._set_timer()

    def record(self) -> ReplicaRecord:
        """All there is to know so far."""
        self._run()
        return ReplicaRecord(
            slots=self._engine.shape.slots,
            max_concurrency=self._engine.max_concurrency,
            tokens_served=self._engine.tokens_served,
            read_at=self._now(),
            sequences=[SequenceRecord.of(sequence) for sequence in (*self._ended, *self._followers)],
        )

    def _now(self) -> float:
        return self._loop.time() * self._factor

    def _run(self) -> None:
        # A late call runs all that was due, so rates do not drift; one that follows hears of it once.
        for sequence in dict.fromkeys(self._engine.advance(self._now())):
            follower = self._followers.get(sequence)
            if follower is None:
                continue
            if sequence.ended_at is not None:
                del self._followers[sequence]
                self._ended.append(sequence)
            follower.on_tokens(sequence)

    def _on_timer(self) -> None:
        self._run()
        self._set_timer()

    def _set_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        next_at = self._engine.next_at
        self._timer = None if next_at is None else self._loop.call_at(next_at / self._factor, self._on_timer)
