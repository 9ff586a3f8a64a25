"""One stage a test: real sidecars and Envoys on free ports, and an upstream that counts for itself."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from tests.chaos.stage import Shape, Stage

NewStage = Callable[[Shape], Stage]


@pytest.fixture
async def new_stage(tmp_path: Path) -> AsyncIterator[NewStage]:
    """A stage with nothing on it yet; its end leaves no process and no connection."""
    async with AsyncExitStack() as stack:

        def new(shape: Shape) -> Stage:
            stage = Stage(tmp_path, shape)
            stack.callback(stage.close)
            stack.push_async_callback(stage.hang_up)
            return stage

        yield new
