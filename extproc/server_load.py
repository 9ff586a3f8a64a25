"""What a cluster's servers say of themselves, as last read."""

from __future__ import annotations

from dataclasses import dataclass

FRESH_SECONDS = 10.0
"""Older news say nothing: a poller that hangs never stops dispatch."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerLoad:
    """One cluster, all its endpoints together.

    Attributes:
        saturation: 0.0 idle .. 1.0 full: the fuller of slots and key/value cache; None when they do not say.
        queue_depth: requests waiting inside the servers; None when they do not say.
        age_seconds: since the oldest of the numbers was read.
    """

    saturation: float | None = None
    queue_depth: int | None = None
    age_seconds: float = 0.0

    @property
    def is_fresh(self) -> bool:
        """Whether it still says something."""
        return self.age_seconds <= FRESH_SECONDS
