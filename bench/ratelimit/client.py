"""The process that asks: an `Asking` on standard input, an `Asked` on standard output."""

from __future__ import annotations

import asyncio
import gc
import sys
import time

import grpc
import grpc.aio
import msgspec

from bench.ratelimit.messages import METHOD, request
from bench.schedule import poisson_arrivals
from headgate.pb import ratelimit_pb2 as pb

_VALUES = 1000


class Asking(msgspec.Struct, frozen=True):
    """What to ask whom.

    Attributes:
        rate_per_second: of an open loop; 0 for a closed loop with `in_flight` callers.
    """

    port: int
    descriptors: int
    requests: int
    in_flight: int = 1
    rate_per_second: float = 0.0


class Asked(msgspec.Struct, frozen=True):
    """Seconds per request, in an open loop from the moment it was due, and how long it took in all."""

    latencies: list[float]
    seconds: float


async def ask(asking: Asking) -> Asked:
    """Send all requests; every answer has to be OK."""
    messages = [request(asking.descriptors, f"value-{at}") for at in range(_VALUES)]
    latencies: list[float] = []
    async with grpc.aio.insecure_channel(f"127.0.0.1:{asking.port}") as channel:
        call = channel.unary_unary(METHOD)

        async def one(at: int, due_at: float) -> None:
            answer = pb.RateLimitResponse.FromString(await call(messages[at % _VALUES], timeout=30))
            latencies.append(time.perf_counter() - due_at)
            if answer.overall_code != pb.RateLimitResponse.OK or len(answer.statuses) != asking.descriptors:
                raise RuntimeError(f"not the expected answer: {answer}")

        started_at = time.perf_counter()
        if asking.rate_per_second:
            await _open_loop(asking, one, started_at)
        else:
            numbers = iter(range(asking.requests))
            await asyncio.gather(*(_caller(numbers, one) for _ in range(asking.in_flight)))
        return Asked(latencies, time.perf_counter() - started_at)


async def _caller(numbers, one) -> None:  # type: ignore[no-untyped-def]
    for at in numbers:
        await one(at, time.perf_counter())


async def _open_loop(asking, one, started_at) -> None:  # type: ignore[no-untyped-def]
    open_calls: set[asyncio.Task[None]] = set()
    arrivals = poisson_arrivals(asking.rate_per_second, asking.requests / asking.rate_per_second, seed=1)
    for at, arrival in enumerate(arrivals):
        due_at = started_at + arrival
        if (wait := due_at - time.perf_counter()) > 0:
            await asyncio.sleep(wait)
        task = asyncio.create_task(one(at, due_at))
        open_calls.add(task)
        task.add_done_callback(open_calls.discard)
    await asyncio.gather(*open_calls)


def main() -> None:
    """Read, ask, write."""
    asking = msgspec.json.decode(sys.stdin.buffer.read(), type=Asking)
    gc.disable()
    sys.stdout.buffer.write(msgspec.json.encode(asyncio.run(ask(asking))))


if __name__ == "__main__":
    main()
