"""The process that generates a load: a `Load` on standard input, a `LoadResult` on standard output.

One thread over blocking sockets and readiness, because an asyncio client costs several times as much a request and
would compete with what is measured. Knows as much HTTP as it takes to find the end of an answer.
"""

from __future__ import annotations

import ctypes
import gc
import select
import socket
import sys
import time
from collections import deque
from collections.abc import Sized

import msgspec

from bench.load import Load, LoadFailed, LoadResult
from bench.schedule import poisson_arrivals

_PR_SET_TIMERSLACK = 29
_SILENCE_SECONDS = 20.0
_READ_BYTES = 65536
_LENGTH = b"\r\ncontent-length: "


def answer_bytes(data: bytes) -> int | None:
    """How long the answer is that begins here; None while that cannot be told yet.

    Raises:
        LoadFailed: its head names no length.
    """
    end = data.find(b"\r\n\r\n")
    if end < 0:
        return None
    at = data.find(_LENGTH, 0, end)
    if at < 0:
        raise LoadFailed(f"an answer without content-length: {data.decode(errors='replace')}")
    digits = at + len(_LENGTH)
    return end + 4 + int(data[digits : data.index(b"\r\n", digits)])


class Connection:
    """One connection, one request on it at a time."""

    __slots__ = ("_data", "_load", "due_at", "socket")

    def __init__(self, load: Load) -> None:
        self._load = load
        self._data = b""
        self.due_at = 0.0
        self.socket = socket.create_connection(("127.0.0.1", load.port), timeout=_SILENCE_SECONDS)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def send(self, due_at: float) -> None:
        """Send the request; its latency counts from `due_at`."""
        self.due_at = due_at
        self.socket.sendall(self._load.request)

    def receive(self) -> bool:
        """Read what has come; True when the answer is complete.

        Raises:
            LoadFailed: it is not the expected one.
        """
        part = self.socket.recv(_READ_BYTES)
        if not part:
            raise LoadFailed("a connection was closed while it waited for an answer")
        self._data += part
        size = answer_bytes(self._data)
        if size is None or len(self._data) < size:
            return False
        self._check(self._data)
        self._data = b""
        return True

    def _check(self, answer: bytes) -> None:
        load = self._load
        is_good = answer.startswith(b"HTTP/1.1 200 ") and load.expected in answer
        if not is_good or (load.forbidden and load.forbidden in answer):
            raise LoadFailed(f"not the expected answer: {answer.decode(errors='replace')}")


def closed_loop(load: Load, connections: list[Connection]) -> LoadResult:
    """Each connection sends its next request as soon as it has its answer."""
    latencies: list[float] = []
    requests_total = len(connections)
    poll = select.epoll()
    by_number = {connection.socket.fileno(): connection for connection in connections}
    for number in by_number:
        poll.register(number, select.EPOLLIN)
    measure_from = time.perf_counter() + load.warmup_seconds
    end_at = measure_from + load.seconds
    for connection in connections:
        connection.send(time.perf_counter())
    open_requests = len(connections)
    while open_requests:
        ready = poll.poll(_SILENCE_SECONDS)
        _check_not_silent(ready)
        for number, _ in ready:
            connection = by_number[number]
            if not connection.receive():
                continue
            now = time.perf_counter()
            if measure_from <= now < end_at:
                latencies.append(now - connection.due_at)
            if now < end_at:
                connection.send(now)
                requests_total += 1
            else:
                open_requests -= 1
    return _result(latencies, [], requests_total)


def open_loop(load: Load, connections: list[Connection]) -> LoadResult:
    """Requests go out when they are due; one that finds no connection idle waits, and its latency counts the wait."""
    arrivals = poisson_arrivals(load.rate_per_second, load.warmup_seconds + load.seconds, load.seed)
    latencies: list[float] = []
    lateness: list[float] = []
    idle, busy = list(connections), set[Connection]()
    started_at = time.perf_counter()
    measure_from = started_at + load.warmup_seconds
    coming = deque(started_at + arrival for arrival in arrivals)
    while coming or busy:
        while coming and idle and coming[0] <= (now := time.perf_counter()):
            connection = idle.pop()
            busy.add(connection)
            connection.send(coming.popleft())
            lateness.append(now - connection.due_at)
        for connection in _readable(busy, coming[0] if coming and idle else None):
            if connection.receive():
                if connection.due_at >= measure_from:
                    latencies.append(time.perf_counter() - connection.due_at)
                busy.remove(connection)
                idle.append(connection)
    return _result(latencies, lateness, len(arrivals))


def _readable(busy: set[Connection], until: float | None) -> list[Connection]:
    # select(2) and not epoll: epoll counts its timeout in whole milliseconds, and every one would be latency.
    by_number = {connection.socket.fileno(): connection for connection in busy}
    timeout = _SILENCE_SECONDS if until is None else max(0.0, until - time.perf_counter())
    ready, _, _ = select.select(by_number, [], [], timeout)
    if until is None:
        _check_not_silent(ready)
    return [by_number[number] for number in ready]


def _check_not_silent(ready: Sized) -> None:
    if not ready:
        raise LoadFailed(f"no answer for {_SILENCE_SECONDS:.0f} s")


def _result(latencies: list[float], lateness: list[float], requests_total: int) -> LoadResult:
    return LoadResult(
        latencies=latencies, lateness=lateness, requests_total=requests_total, cpu_seconds=time.process_time()
    )


def main() -> int:
    """Read, run, write; a wrong answer ends everything."""
    load = msgspec.json.decode(sys.stdin.buffer.read(), type=Load)
    # Linux lets a sleep end 50 us late unless told otherwise.
    ctypes.CDLL(None).prctl(_PR_SET_TIMERSLACK, 1)
    gc.disable()
    try:
        connections = [Connection(load) for _ in range(load.connections)]
        result = open_loop(load, connections) if load.rate_per_second else closed_loop(load, connections)
    except (LoadFailed, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    sys.stdout.buffer.write(msgspec.json.encode(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
