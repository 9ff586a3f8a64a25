"""The options of a run of the benchmark. All seconds are simulated."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from bench.overload.outcome import Window
from bench.overload.simulated_engine import EngineShape
from bench.overload.systems import System


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is run.

    Attributes:
        loads: multiples of the capacity.
        seconds: the measured part of each run; load is put on for `warmup_seconds` before and `tail_seconds` after,
            so that the system is never seen empty and requests that came late are still answered under load.
        time_factor: simulated seconds per second.
    """

    systems: tuple[System, ...]
    loads: tuple[float, ...]
    seconds: float
    time_factor: float
    seed: int
    policy: Path
    warmup_seconds: float = 20.0
    tail_seconds: float = 30.0
    shape: EngineShape = field(default_factory=EngineShape)

    @property
    def window(self) -> Window:
        """The measured part."""
        return Window(self.warmup_seconds, self.warmup_seconds + self.seconds)

    @property
    def total_seconds(self) -> float:
        """How long load is put on."""
        return self.warmup_seconds + self.seconds + self.tail_seconds
