"""What the live page shows: sections that parts of the process put up, read when somebody looks."""

from __future__ import annotations

from collections.abc import Callable

REUSED_SECONDS = 0.5
"""Who looks again so soon is shown the same, so that many who look cost no more than a few."""

Section = Callable[[], object]
"""Yields what msgspec can write as JSON."""


class LiveBoard:
    """Sections by name. On the event loop only."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._sections: dict[str, Section] = {}
        self._read_at = -REUSED_SECONDS
        self._last: dict[str, object] = {}

    def show(self, name: str, section: Section) -> None:
        """From now on `name` is one of the sections."""
        self._sections[name] = section
        self._read_at = self._clock() - REUSED_SECONDS

    def snapshot(self) -> dict[str, object]:
        """All sections as they are now, or were a moment ago."""
        now = self._clock()
        if now - self._read_at >= REUSED_SECONDS:
            self._last = {name: section() for name, section in self._sections.items()}
            self._read_at = now
        return self._last
