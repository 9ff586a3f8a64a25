"""All that runs during the benchmark: the servers to be measured, and one Envoy that asks them all."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import sysconfig
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from bench.transport.edge import EXT_PROC, RATE_LIMIT, bootstrap
from headgate_cli.processes import ProcessFailed, Program, Supervisor
from headgate_cli.stack import envoy_binary

_PEER = Path(__file__).parents[1] / "peers" / "grpcgo"
_BUILD_SECONDS = 300.0


class Subject(StrEnum):
    """What is measured. `DECISION` is the whole real decision on the lean transport; the others decide nothing."""

    LEAN = "lean"
    GRPCIO = "grpcio"
    GRPCGO = "grpcgo"
    DECISION = "decision"


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """Where things are while everything runs; ports of Envoy by filter and subject."""

    subjects: Sequence[Subject]
    ports: Mapping[tuple[str, str], int]
    pids: Mapping[Subject, int]


@contextmanager
def running(folder: Path, python: str = sys.executable) -> Iterator[Stage]:
    """Start everything and wait until it is ready; without a Go toolchain the Go peer is left out.

    Args:
        folder: for the configuration, the logs and the Go program.
        python: the interpreter of the servers in Python.

    Raises:
        ProcessFailed: something did not start.
    """
    folder = folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    commands = _commands(folder, python)
    with ExitStack() as stack:
        servers = {subject: stack.enter_context(served(command)) for subject, command in commands.items()}
        ports = {
            (kind, subject): _free_port()
            for kind in (EXT_PROC, RATE_LIMIT)
            for subject in servers
            if kind == EXT_PROC or subject is not Subject.DECISION
        }
        addresses = {str(subject): address for subject, (address, _) in servers.items()}
        supervisor = stack.enter_context(Supervisor(folder / "logs"))
        supervisor.start(_envoy(folder, addresses, ports))
        supervisor.wait_ready()
        yield Stage(subjects=list(servers), ports=ports, pids={subject: pid for subject, (_, pid) in servers.items()})


@contextmanager
def served(command: Sequence[str]) -> Iterator[tuple[str, int]]:
    """Run a server that prints its address; yields the address and the process id.

    Raises:
        ProcessFailed: it ended before.
    """
    # Whatever interpreter runs it, with the packages of this one.
    environment = {**os.environ, "PYTHONPATH": sysconfig.get_path("platlib")}
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None  # asked for above
            address = server.stdout.readline().strip()
            if not address:
                raise ProcessFailed(f"{' '.join(command)} did not start")
            yield address, server.pid
        finally:
            server.kill()


def server_command(subject: Subject, python: str = sys.executable) -> list[str]:
    """How one of the servers in Python is started."""
    return [python, "-m", "bench.transport.serve", subject]


def _commands(folder: Path, python: str) -> dict[Subject, list[str]]:
    commands = {subject: server_command(subject, python) for subject in Subject if subject is not Subject.GRPCGO}
    peer = _build_peer(folder)
    return commands if peer is None else {**commands, Subject.GRPCGO: [str(peer), "127.0.0.1:0"]}


def _build_peer(folder: Path) -> Path | None:
    go, program = shutil.which("go"), folder / "grpcgo"
    if go is None:
        return None
    command = [go, "build", "-o", str(program), "."]
    environment = {**os.environ, "GOFLAGS": "-mod=readonly"}
    try:
        subprocess.run(command, cwd=_PEER, env=environment, check=True, capture_output=True, timeout=_BUILD_SECONDS)
    except (subprocess.SubprocessError, OSError):
        return None
    return program


def _envoy(folder: Path, addresses: Mapping[str, str], ports: Mapping[tuple[str, str], int]) -> Program:
    admin_port, path = _free_port(), folder / "envoy.json"
    path.write_text(json.dumps(bootstrap(addresses, ports, _free_port(), admin_port)))
    options = ["--disable-hot-restart", "--concurrency", "1", "--log-level", "warning"]
    return Program(
        name="envoy",
        command=[str(envoy_binary()), "-c", str(path), *options],
        ready_url=f"http://127.0.0.1:{admin_port}/ready",
    )


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])
