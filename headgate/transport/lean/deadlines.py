"""When calls run out of time: one ordered heap, so that a connection needs one timer."""

from __future__ import annotations

import heapq
from collections.abc import Container, Iterator

_SLACK = 1024


class Deadlines:
    """Deadlines by stream. Those of finished streams stay until they pass, or until they are the most."""

    __slots__ = ("_heap", "_streams")

    def __init__(self, streams: Container[int]) -> None:
        self._heap: list[tuple[float, int]] = []
        self._streams = streams

    @property
    def next(self) -> float | None:
        """The earliest deadline, perhaps of a stream that has ended already."""
        return self._heap[0][0] if self._heap else None

    def add(self, deadline: float, stream_id: int) -> None:
        """Note the deadline of a stream that is open."""
        heapq.heappush(self._heap, (deadline, stream_id))

    def passed(self, now: float) -> Iterator[int]:
        """Take out the streams whose time has run out by `now`; some may have ended already."""
        while self._heap and self._heap[0][0] <= now:
            yield heapq.heappop(self._heap)[1]

    def tidy(self, open_streams: int) -> None:
        """Drop the deadlines of ended streams when they are the most by far."""
        if len(self._heap) > 2 * open_streams + _SLACK:
            self._heap = [entry for entry in self._heap if entry[1] in self._streams]
            heapq.heapify(self._heap)
