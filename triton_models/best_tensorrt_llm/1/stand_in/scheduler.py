"""The scheduler thread: paces the batcher in real time and answers each call after every iteration.

Owns the clock and the lock. All answers leave from this one thread, so the tokens of a stream stay in order.
"""

from __future__ import annotations

import threading
import time

import triton_python_backend_utils as pb_utils

from stand_in.batcher import Batcher
from stand_in.call import Call
from stand_in.generation import Generation
from stand_in.metrics import EngineMetrics


class Scheduler:
    """Steps a batcher once per `iteration_seconds` while it has work, and sleeps when it has none."""

    def __init__(
        self,
        *,
        batcher: Batcher,
        metrics: EngineMetrics,
        iteration_seconds: float,
        stats_seconds: float,
        cancellation_seconds: float,
    ) -> None:
        self._batcher = batcher
        self._metrics = metrics
        self._iteration_seconds = iteration_seconds
        self._stats_seconds = stats_seconds
        self._cancellation_seconds = cancellation_seconds
        self._calls: dict[Generation, Call] = {}
        self._work = threading.Condition()
        self._is_closed = threading.Event()
        self._iteration_end = 0.0
        self._next_stats = 0.0
        self._next_cancellation_check = 0.0
        self._thread = threading.Thread(target=self._run, name="scheduler", daemon=True)
        self._thread.start()

    def submit(self, call: Call) -> None:
        """Put a call in line. Raises RequestRefused when it can never run."""
        with self._work:
            self._batcher.submit(call.generation)
            self._calls[call.generation] = call
            self._work.notify()

    def stop(self, request_id: str) -> None:
        """End the calls that carry this request id, at the next iteration."""
        with self._work:
            for call in self._calls.values():
                call.is_stopped = call.is_stopped or call.request_id == request_id

    def close(self) -> None:
        """End the thread."""
        self._is_closed.set()
        with self._work:
            self._work.notify()
        self._thread.join()

    def _run(self) -> None:
        while self._wait_for_work():
            self._admit()
            self._iteration_end = max(self._iteration_end + self._iteration_seconds, time.monotonic())
            self._is_closed.wait(self._iteration_end - time.monotonic())
            self._dismiss_departed()
            with self._work:
                stepped = self._batcher.advance()
            for generation in stepped:
                self._answer(self._calls[generation])

    def _wait_for_work(self) -> bool:
        if self._batcher.is_idle:
            self._publish()
            with self._work:
                self._work.wait_for(lambda: self._is_closed.is_set() or not self._batcher.is_idle)
            self._iteration_end = time.monotonic()
        return not self._is_closed.is_set()

    def _admit(self) -> None:
        with self._work:
            admitted = self._batcher.admit()
        for generation in admitted:
            self._calls[generation].scheduled_ns = time.monotonic_ns()
        if time.monotonic() >= self._next_stats:
            self._next_stats = time.monotonic() + self._stats_seconds
            self._publish()

    def _publish(self) -> None:
        with self._work:
            snapshot = self._batcher.snapshot()
        self._metrics.publish(snapshot)

    def _dismiss_departed(self) -> None:
        if time.monotonic() < self._next_cancellation_check:
            return
        self._next_cancellation_check = time.monotonic() + self._cancellation_seconds
        with self._work:
            calls = list(self._calls.values())
        for call in calls:
            if call.has_left:
                # It ends with what it has written, as the real engine ends a cancelled request.
                call.generation.is_finished = True
                self._answer(call)

    def _answer(self, call: Call) -> None:
        try:
            call.answer()
        except pb_utils.TritonModelException as problem:
            pb_utils.Logger.log_error(f"request {call.request_id!r} lost its answer: {problem}")
            call.generation.is_finished = True
        if call.generation.is_finished:
            self._forget(call)

    def _forget(self, call: Call) -> None:
        with self._work:
            self._batcher.remove(call.generation)
            del self._calls[call.generation]
        self._metrics.count_finished(
            input_tokens=call.generation.prompt_tokens, output_tokens=len(call.generation.output)
        )
