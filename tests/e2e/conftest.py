"""The whole stack on real parts, started once: Envoy 1.40, 1.39.3 beside it, Triton, the stand-ins, Headgate."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from headgate_cli.demo.client import Client
from headgate_cli.ports import Ports
from headgate_cli.stack import Stack, StackSettings, envoy_program


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    settings = StackSettings(ports=Ports.free(), run=tmp_path_factory.mktemp("stack"))
    with Stack(settings, print) as running:
        yield running


@pytest.fixture(scope="session")
def older_envoy_url(stack: Stack, previous_envoy: Path) -> str:
    """The same sidecar and models behind the older Envoy."""
    listen, admin = _two_free_ports()
    ports = stack.settings.ports
    text = (stack.settings.run / "envoy.yaml").read_text()
    for old, new in ((ports.envoy, listen), (ports.envoy_admin, admin)):
        assert text.count(f"port_value: {old}") == 1
        text = text.replace(f"port_value: {old}", f"port_value: {new}")
    configuration = stack.settings.run / "envoy-older.yaml"
    configuration.write_text(text)
    stack.supervisor.start(envoy_program(previous_envoy, configuration, admin, "envoy-older"))
    stack.supervisor.wait_ready()
    return f"http://127.0.0.1:{listen}"


@pytest.fixture(params=["1.40", "1.39.3"])
def url(request: pytest.FixtureRequest, stack: Stack) -> str:
    """Each Envoy in turn."""
    return stack.url if request.param == "1.40" else str(request.getfixturevalue("older_envoy_url"))


@pytest.fixture
def client(url: str, stack: Stack) -> Iterator[Client]:
    with Client(url, stack.supervisor.log("headgate")) as client:
        yield client


@pytest.fixture
def openai_url(url: str) -> str:
    return f"{url}/v1"


@pytest.fixture(scope="session")
def repository() -> Path:
    return Path(__file__).resolve().parents[2]


def _two_free_ports() -> tuple[int, int]:
    free = Ports.free()
    return free.envoy, free.envoy_admin
