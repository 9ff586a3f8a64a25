"""Work that goes on while nobody asks: a coroutine function called again and again, with a pause in between."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

Work = Callable[[], Awaitable[None]]


class Repeated:
    """A task of its own from start to stop; `at_end` is called once after that.

    What `work` raises ends the task: it has to handle its own errors.
    """

    def __init__(self, work: Work, pause_seconds: float, at_end: Work | None = None) -> None:
        self._work = work
        self._at_end = at_end
        self._pause_seconds = pause_seconds
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> str:
        """Begin; there is no address to return."""
        self._task = asyncio.create_task(self._repeat())
        return ""

    async def stop(self) -> None:
        """End, also in the middle of the work."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
        if self._at_end is not None:
            await self._at_end()

    async def _repeat(self) -> None:
        while True:
            await self._work()
            await asyncio.sleep(self._pause_seconds)
