"""How an answer travels over HTTP: whole, or as a stream of events, and never longer than the client stays.

The real server looks for a client that has left once a second; this one notices at once.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import aclosing
from http import HTTPStatus

import msgspec
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from headgate_cli.trtllm_serve_standin.dialect import Dialect, sse, usage_of
from headgate_cli.trtllm_serve_standin.generation import Delta, EngineStopped, Generation
from headgate_cli.trtllm_serve_standin.refusal import Refusal
from headgate_cli.trtllm_serve_standin.response import Usage
from headgate_cli.trtllm_serve_standin.scheduler import Job, Scheduler

_STOPPED = Refusal(HTTPStatus.SERVICE_UNAVAILABLE, "the server is shutting down")


class JsonReply(Response):
    """A value as a JSON body."""

    media_type = "application/json"

    def render(self, content: object) -> bytes:
        """Encode the body."""
        return msgspec.json.encode(content)


class GeneratedReply(Response, ABC):
    """An answer that is made while the client waits for it; a subclass says how it is sent."""

    def __init__(self, dialect: Dialect, jobs: list[Job], scheduler: Scheduler) -> None:
        super().__init__()
        self._dialect = dialect
        self._jobs = jobs
        self._scheduler = scheduler

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Generate and send; give up as soon as the client is gone."""
        work = asyncio.create_task(self._work(scope, receive, send))
        gone = asyncio.create_task(_disconnected(receive))
        try:
            await asyncio.wait({work, gone}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            is_answered = work.done()
            work.cancel()
            gone.cancel()
        if is_answered:
            work.result()

    async def _work(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await self._answer(scope, receive, send)
        except EngineStopped:
            await JsonReply(_STOPPED.body, status_code=_STOPPED.status)(scope, receive, send)

    @abstractmethod
    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None: ...


class WholeReply(GeneratedReply):
    """The answer as one JSON body, once all of it is there."""

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        generation = await self._scheduler.run_to_end(self._jobs)
        usage = usage_of(generation.sequences, self._dialect.request.n)
        await JsonReply(self._dialect.whole(generation.sequences, usage))(scope, receive, send)


class StreamedReply(GeneratedReply):
    """The answer as server-sent events, one per token and choice, ended as the dialect ends it.

    The headers go out before the first token. Events that are due together share one write.
    """

    async def _answer(self, _scope: Scope, _receive: Receive, send: Send) -> None:
        generation = self._scheduler.submit(self._jobs)
        try:
            await self._stream(generation, send)
        finally:
            generation.abort()

    async def _stream(self, generation: Generation, send: Send) -> None:
        headers = [(b"content-type", b"text/event-stream; charset=utf-8")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        try:
            async with aclosing(self._writes(generation)) as writes:
                async for write in writes:
                    await send({"type": "http.response.body", "body": write, "more_body": True})
            last = self._dialect.closing(generation.sequences)
        except EngineStopped:
            last = sse(_STOPPED.body)
        await send({"type": "http.response.body", "body": last})

    async def _writes(self, generation: Generation) -> AsyncGenerator[bytes]:
        finished: Counter[int] = Counter()
        opening = self._dialect.opening(self._running_usage(generation, 0, 0))
        async with aclosing(generation.deltas()) as batches:
            async for deltas in batches:
                events = [event for delta in deltas for event in self._events(generation, delta, finished)]
                yield b"".join([*opening, *events])
                opening = []

    def _events(self, generation: Generation, delta: Delta, finished: Counter[int]) -> list[bytes]:
        """Return a token's event and, after the last one of a prompt, that prompt's usage, as the real one does."""
        usage = self._running_usage(generation, delta.sequence_index, delta.completion_tokens)
        events = [self._dialect.event(delta, usage)]
        n, options = self._dialect.request.n, self._dialect.request.stream_options
        prompt_index = delta.sequence_index // n
        finished[prompt_index] += delta.finish_reason is not None
        if finished[prompt_index] == n and options is not None and options.include_usage:
            sequences = generation.sequences[prompt_index * n : prompt_index * n + n]
            events.append(self._dialect.usage_event(usage_of(sequences, n)))
        return events

    def _running_usage(self, generation: Generation, index: int, completion_tokens: int) -> Usage | None:
        options = self._dialect.request.stream_options
        if options is None or not options.include_usage or not options.continuous_usage_stats:
            return None
        return usage_of(generation.sequences[index : index + 1], 1, completion_tokens)


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
