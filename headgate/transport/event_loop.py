"""The event loop a process runs on: uvloop's where it is installed, which saves a fifth of what a stream costs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any


def run(main: Coroutine[Any, Any, None]) -> None:
    """Run a program to its end, as `asyncio.run` does."""
    with asyncio.Runner(loop_factory=new_event_loop()) as runner:
        runner.run(main)


def new_event_loop() -> Callable[[], asyncio.AbstractEventLoop]:
    """What makes an event loop here."""
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop
    return uvloop.new_event_loop
