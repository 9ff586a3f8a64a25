"""The one task that gives the simulated engine its clock and wakes the requests it has news for.

One timer for all sequences, not one each: with 200 streams a tick is one pass over them, and a tick that comes late
is made up for by the engine.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

from headgate_cli.trtllm_serve_standin.answer import Answer
from headgate_cli.trtllm_serve_standin.engine import Engine
from headgate_cli.trtllm_serve_standin.generation import EngineStopped, Generation
from headgate_cli.trtllm_serve_standin.prompt import Prompt
from headgate_cli.trtllm_serve_standin.sequence import Sequence

Job = tuple[Prompt, Answer]
"""One sequence to be: what is asked and what will be answered."""


class Scheduler:
    """Runs an engine on the event loop's clock; `on_finished` is told of every sequence that ran to its end."""

    def __init__(self, engine: Engine, on_finished: Callable[[Sequence], None]) -> None:
        self.engine = engine
        self._on_finished = on_finished
        self._followers: dict[Sequence, Generation] = {}
        self._work = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._stopped = False

    @property
    def is_running(self) -> bool:
        """False before `start`, after `stop`, and if the engine broke."""
        return self._task is not None and not self._task.done()

    def start(self) -> None:
        """Begin to run; needs a running event loop."""
        self._task = asyncio.create_task(self._run(), name="trtllm-serve-standin-engine")

    def stop(self) -> None:
        """End every generation with `EngineStopped` and refuse new ones with the same."""
        self._stopped = True
        for generation in set(self._followers.values()):
            generation.stop()
        if self._task is not None:
            self._task.cancel()

    def submit(self, jobs: Iterable[Job]) -> Generation:
        """Hand sequences to the engine."""
        if self._stopped:
            raise EngineStopped
        now = asyncio.get_running_loop().time()
        sequences = tuple(self.engine.submit(prompt, answer, now) for prompt, answer in jobs)
        generation = Generation(sequences, self._abort)
        self._followers.update(dict.fromkeys(sequences, generation))
        self._work.set()
        return generation

    async def run_to_end(self, jobs: Iterable[Job]) -> Generation:
        """Hand sequences to the engine and wait until all are finished."""
        generation = self.submit(jobs)
        try:
            async for _ in generation.deltas():
                pass
        finally:
            generation.abort()
        return generation

    def _abort(self, generation: Generation) -> None:
        now = asyncio.get_running_loop().time()
        for sequence in generation.sequences:
            if self._followers.pop(sequence, None) is not None:
                self.engine.abort(sequence, now)

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            if self.engine.next_at is None:
                self._work.clear()
                await self._work.wait()
            else:
                # Even when late: sleeping for nothing lets the streams write what they have.
                await asyncio.sleep(max(0.0, self.engine.next_at - loop.time()))
            for sequence in self.engine.advance(loop.time()):
                self._tell(sequence)

    def _tell(self, sequence: Sequence) -> None:
        generation = self._followers.get(sequence)
        if generation is None:
            return
        generation.wake()
        if sequence.finished_at is not None:
            del self._followers[sequence]
            self._on_finished(sequence)
