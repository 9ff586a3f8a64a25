"""The whole stack on real parts, once: Triton, the stand-ins, Headgate on each transport, Envoy 1.40 and 1.39.3."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from headgate_cli.demo.client import Client
from headgate_cli.ports import Ports
from headgate_cli.processes import Program
from headgate_cli.stack import Stack, StackSettings, envoy_binary, envoy_program


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    settings = StackSettings(ports=Ports.free(), run=tmp_path_factory.mktemp("stack"))
    with Stack(settings, print) as running:
        yield running


def start_envoy_beside(stack: Stack, binary: Path, name: str, moved: Mapping[int, int]) -> str:
    """Another Envoy with the stack's configuration, some of its ports moved: its URL, once it is waited for."""
    ports, free = stack.settings.ports, Ports.free()
    text = (stack.settings.run / "envoy.yaml").read_text()
    for old, new in ({ports.envoy: free.envoy, ports.envoy_admin: free.envoy_admin} | moved).items():
        assert f"port_value: {old}\n" in text
        text = text.replace(f"port_value: {old}\n", f"port_value: {new}\n")
    configuration = stack.settings.run / f"{name}.yaml"
    configuration.write_text(text)
    stack.supervisor.start(envoy_program(binary, configuration, free.envoy_admin, name))
    return f"http://127.0.0.1:{free.envoy}"


@pytest.fixture(scope="session")
def older_envoy_url(stack: Stack, previous_envoy: Path) -> str:
    """The same sidecar and models behind the older Envoy."""
    url = start_envoy_beside(stack, previous_envoy, "envoy-older", {})
    stack.supervisor.wait_ready()
    return url


@dataclass(frozen=True)
class Sidecar:
    """Another sidecar before the same models, and an Envoy of its own."""

    url: str
    admin_url: str
    log: Path


@pytest.fixture(scope="session")
def on_grpcio(stack: Stack) -> Sidecar:
    """A sidecar whose transport is the reference."""
    ports, free = stack.settings.ports, Ports.free()
    admin_url = f"http://127.0.0.1:{free.admin}"
    names = ("extproc", "ratelimit", "ratelimit_http", "admin")
    addresses = {f"HEADGATE_{name.upper()}_ADDRESS": f"127.0.0.1:{getattr(free, name)}" for name in names}
    sidecar = Program(
        name="headgate-on-grpcio",
        command=[sys.executable, "-m", "headgate_cli", "serve"],
        environment={"HEADGATE_POLICY": str(stack.policy_path), "HEADGATE_TRANSPORT": "grpcio", **addresses},
        ready_url=f"{admin_url}/readyz",
    )
    stack.supervisor.start(sidecar)
    moved = {ports.extproc: free.extproc, ports.ratelimit: free.ratelimit}
    url = start_envoy_beside(stack, envoy_binary(), "envoy-on-grpcio", moved)
    stack.supervisor.wait_ready()
    return Sidecar(url, admin_url, stack.supervisor.log(sidecar.name))


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
