"""The event loop a process runs on: uvloop's where it is installed, which saves a fifth of what a stream costs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

_LONG_BODY_BYTES = 4 * 1024 * 1024


def run(main: Coroutine[Any, Any, None]) -> None:
    """Run a program to its end, as `asyncio.run` does."""
    _keep_freed_memory()
    with asyncio.Runner(loop_factory=new_event_loop()) as runner:
        runner.run(main)


def _keep_freed_memory() -> None:
    """Let glibc's malloc keep what is freed, up to some MiB, for the next body.

    It takes the longest block that was freed as the measure (mallopt(3), M_MMAP_THRESHOLD). Without one, every long
    body is mapped anew, and to fault in its pages takes several times as long as to read it.
    """
    bytearray(_LONG_BODY_BYTES)


def new_event_loop() -> Callable[[], asyncio.AbstractEventLoop]:
    """What makes an event loop here."""
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop
    return uvloop.new_event_loop
