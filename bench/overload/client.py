"""`python -m bench.overload.client`: all clients of a run in one process; a plan on stdin, the outcomes on stdout.

Clients behave as openai's: keep-alive connections, streamed answers, a time-out, and no second attempt.
"""

from __future__ import annotations

import asyncio
import gc
import sys
import time
from dataclasses import dataclass

import msgspec

from bench.overload.outcome import Ending, Outcome
from bench.overload.question import question
from bench.overload.response import Response
from bench.overload.workload import Arrival

_START_SECONDS = 0.2


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientPlan:
    """What to send to a port on this machine; everything that is open after `seconds` (simulated) is cut."""

    port: int
    time_factor: float
    seconds: float
    arrivals: list[Arrival]


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientResult:
    """The outcomes, and the clock (CLOCK_MONOTONIC, wall seconds) at which the run started."""

    started_at: float
    cpu_seconds: float
    outcomes: list[Outcome]


class Call:
    """One request from the moment it is due."""

    def __init__(self, arrival: Arrival, due_at: float) -> None:
        self.arrival = arrival
        self.due_at = due_at
        self.sent_at = due_at
        self.ended_at = due_at
        self.response = Response()
        self.progress: list[tuple[float, int]] = []
        self.ending: Ending | None = None
        self.patience: asyncio.TimerHandle | None = None
        self.connection: Connection | None = None

    def end(self, ending: Ending, now: float) -> None:
        """It is over; what came first counts."""
        if self.ending is None:
            self.ending, self.ended_at = ending, now
        if self.patience is not None:
            self.patience.cancel()


class Connection(asyncio.Protocol):
    """A keep-alive connection; goes back to the crowd after each answer."""

    def __init__(self, crowd: Crowd) -> None:
        self._crowd = crowd
        self._call: Call | None = None
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by asyncio."""
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        """Called by asyncio."""
        del exc
        self.transport = None
        if self._call is not None:
            self._call.end(Ending.FAILED, self._crowd.now())

    def send(self, call: Call) -> None:
        """Send a request."""
        assert self.transport is not None
        self._call, call.connection = call, self
        call.sent_at = self._crowd.now()
        self.transport.write(question(call.arrival))

    def data_received(self, data: bytes) -> None:
        """Called by asyncio."""
        call = self._call
        if call is None:
            return
        call.response.receive(data)
        self._crowd.on_progress(call)
        if call.response.is_over:
            self._call = None
            self._crowd.on_answered(call, self)

    def hang_up(self) -> None:
        """Leave in the middle, as a client does whose patience is over."""
        self._call = None
        if self.transport is not None:
            self.transport.abort()


class Crowd:
    """All clients together."""

    def __init__(self, plan: ClientPlan) -> None:
        self._plan = plan
        self._loop = asyncio.get_running_loop()
        self._idle: list[Connection] = []
        self._connecting: set[asyncio.Task[None]] = set()
        self.started_at = self._loop.time() + _START_SECONDS
        self.calls = [Call(arrival, self._at(arrival.due_seconds)) for arrival in plan.arrivals]

    def now(self) -> float:
        """The wall clock."""
        return self._loop.time()

    async def run(self) -> None:
        """Send everything when it is due; at the end of the run cut what is open."""
        for call in self.calls:
            self._loop.call_at(call.due_at, self._begin, call)
        await asyncio.sleep(self._at(self._plan.seconds) - self.now())
        for call in self.calls:
            self._stop(call, Ending.CUT)
        for connection in self._idle:
            connection.hang_up()
        await asyncio.gather(*self._connecting, return_exceptions=True)

    def on_progress(self, call: Call) -> None:
        """Something came."""
        tokens = call.response.tokens
        if tokens and (not call.progress or tokens > call.progress[-1][1]):
            call.progress.append((self.now(), tokens))
            if call.patience is not None:
                call.patience.cancel()

    def on_answered(self, call: Call, connection: Connection) -> None:
        """All came."""
        good = Ending.COMPLETED if call.response.status == 200 else Ending.FAILED
        call.end(Ending.REFUSED if call.response.is_refusal else good, self.now())
        self._idle.append(connection)

    def outcome(self, call: Call) -> Outcome:
        """Its story in simulated seconds."""
        progress = [(self._seconds(moment), tokens) for moment, tokens in call.progress]
        is_bad = call.ending in (Ending.REFUSED, Ending.FAILED)
        return Outcome(
            number=call.arrival.number,
            tier=call.arrival.tier,
            tenant=call.arrival.tenant,
            due_seconds=call.arrival.due_seconds,
            prompt_tokens=call.arrival.prompt_tokens,
            ending=call.ending or Ending.CUT,
            status=call.response.status,
            reason=call.response.reason if is_bad else "",
            decision=call.response.decision,
            first_token_seconds=progress[0][0] if progress else None,
            progress=progress,
            answered_wall_ms=(call.ended_at - call.sent_at) * 1000,
            late_wall_ms=(call.sent_at - call.due_at) * 1000,
        )

    def _begin(self, call: Call) -> None:
        patience_at = call.due_at + call.arrival.patience_seconds / self._plan.time_factor
        call.patience = self._loop.call_at(patience_at, self._stop, call, Ending.GAVE_UP)
        while self._idle:
            connection = self._idle.pop()
            if connection.transport is not None:
                connection.send(call)
                return
        task = self._loop.create_task(self._connect(call))
        self._connecting.add(task)
        task.add_done_callback(self._connecting.discard)

    async def _connect(self, call: Call) -> None:
        try:
            _, connection = await self._loop.create_connection(lambda: Connection(self), "127.0.0.1", self._plan.port)
        except OSError:
            call.end(Ending.FAILED, self.now())
            return
        if call.ending is None:
            connection.send(call)
        else:
            connection.hang_up()

    def _stop(self, call: Call, ending: Ending) -> None:
        if call.ending is None:
            call.end(ending, self.now())
            if call.connection is not None:
                call.connection.hang_up()

    def _at(self, seconds: float) -> float:
        return self.started_at + seconds / self._plan.time_factor

    def _seconds(self, moment: float) -> float:
        return (moment - self.started_at) * self._plan.time_factor


async def run(plan: ClientPlan) -> ClientResult:
    """The whole run."""
    crowd = Crowd(plan)
    await crowd.run()
    outcomes = [crowd.outcome(call) for call in crowd.calls]
    return ClientResult(started_at=crowd.started_at, cpu_seconds=time.process_time(), outcomes=outcomes)


def main() -> None:
    """Read, run, write."""
    plan = msgspec.json.decode(sys.stdin.buffer.read(), type=ClientPlan)
    gc.freeze()
    sys.stdout.buffer.write(msgspec.json.encode(asyncio.run(run(plan))))


if __name__ == "__main__":
    main()
