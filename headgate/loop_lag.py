"""How late the event loop runs what is due: what every request waits before its turn, and no other timer sees."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

PERIOD_SECONDS = 0.25


class LoopLag:
    """Asks to be called every `PERIOD_SECONDS` and tells `observe` how many seconds late each call came."""

    def __init__(self, observe: Callable[[float], None]) -> None:
        self._observe = observe
        self._next: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Begin; on the event loop to watch."""
        loop = asyncio.get_running_loop()
        self._ask(loop, loop.time() + PERIOD_SECONDS)

    def stop(self) -> None:
        """End."""
        if self._next is not None:
            self._next.cancel()

    def _ask(self, loop: asyncio.AbstractEventLoop, due: float) -> None:
        self._next = loop.call_at(due, self._called, loop, due)

    def _called(self, loop: asyncio.AbstractEventLoop, due: float) -> None:
        now = loop.time()
        self._observe(max(0.0, now - due))
        # Counted from now: a loop that stood still would otherwise be asked for all it missed at once.
        self._ask(loop, now + PERIOD_SECONDS)
