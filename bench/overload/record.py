"""What a simulated replica wrote down by itself, independent of what gateway and clients believe."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from bench.overload.outcome import Window
from bench.overload.simulated_engine import SimulatedSequence


@dataclass(frozen=True, slots=True, kw_only=True)
class SequenceRecord:
    """One request at a replica; simulated seconds of the replica's clock, None for "never"."""

    number: int
    prompt_tokens: int
    produced_tokens: int
    is_complete: bool
    arrived_at: float
    admitted_at: float | None
    first_token_at: float | None
    ended_at: float | None

    @classmethod
    def of(cls, sequence: SimulatedSequence) -> SequenceRecord:
        """The sequence as it is now."""
        return cls(
            number=sequence.number,
            prompt_tokens=sequence.prompt_tokens,
            produced_tokens=sequence.produced_tokens,
            is_complete=sequence.produced_tokens == sequence.answer_tokens,
            arrived_at=sequence.arrived_at,
            admitted_at=sequence.admitted_at,
            first_token_at=sequence.first_token_at,
            ended_at=sequence.ended_at,
        )

    def since(self, start: float) -> SequenceRecord:
        """The same, with moments counted from `start`."""
        return replace(
            self,
            arrived_at=self.arrived_at - start,
            admitted_at=_since(self.admitted_at, start),
            first_token_at=_since(self.first_token_at, start),
            ended_at=_since(self.ended_at, start),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicaRecord:
    """One replica's whole run; `read_at` is when this was written down."""

    slots: int
    max_concurrency: int
    tokens_served: int
    read_at: float
    sequences: list[SequenceRecord]

    def since(self, start: float) -> ReplicaRecord:
        """The same, with moments counted from `start`."""
        sequences = [sequence.since(start) for sequence in self.sequences]
        return replace(self, read_at=self.read_at - start, sequences=sequences)


def utilisation(replicas: Sequence[ReplicaRecord], window: Window) -> float:
    """The share of all slots that were taken, on average over the window (in the replicas' own seconds)."""
    taken = sum(_taken_seconds(replica, window) for replica in replicas)
    return taken / (sum(replica.slots for replica in replicas) * window.seconds)


def _taken_seconds(replica: ReplicaRecord, window: Window) -> float:
    return sum(
        window.overlap(sequence.admitted_at, replica.read_at if sequence.ended_at is None else sequence.ended_at)
        for sequence in replica.sequences
        if sequence.admitted_at is not None
    )


def _since(moment: float | None, start: float) -> float | None:
    return None if moment is None else moment - start
