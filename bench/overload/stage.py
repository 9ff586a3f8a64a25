"""All that runs during one measurement: two simulated replicas, one Envoy, and the sidecar where the system has one."""

from __future__ import annotations

import sys
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import msgspec

from bench.overload.record import ReplicaRecord
from bench.overload.scaled_policy import scaled_policy
from bench.overload.simulated_engine import EngineShape
from bench.overload.systems import System, configuration
from headgate.policy.load import load_policy
from headgate_cli.ports import Ports
from headgate_cli.processes import Program, Supervisor
from headgate_cli.render.settings import EnvoySettings
from headgate_cli.render.yaml_text import dump
from headgate_cli.stack import envoy_binary, envoy_program

POLICY = Path(__file__).with_name("policy.yaml")
REPLICAS = 2
SIDECAR = "headgate"


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """Where things are while everything runs."""

    port: int
    replica_ports: tuple[int, ...]
    pids: Mapping[str, int]

    def records(self) -> list[ReplicaRecord]:
        """What the replicas wrote down so far."""
        return [_record(port) for port in self.replica_ports]


@contextmanager
def running(system: System, policy: Path, shape: EngineShape, time_factor: float, folder: Path) -> Iterator[Stage]:
    """Start everything on free ports and wait until it is ready; the end of the block leaves no process.

    Args:
        policy: in simulated seconds.
        folder: for configurations and logs.

    Raises:
        ProcessFailed: something did not start.
        PolicyError: the policy is wrong.
    """
    ports = Ports.free()
    folder = folder.resolve()
    _write_configuration(system, policy, shape, time_factor, ports, folder)
    programs = [*_replicas(ports, shape, time_factor)]
    if system is System.HEADGATE:
        programs.append(_sidecar(ports, folder))
    programs.append(envoy_program(envoy_binary(), folder / "envoy.yaml", ports.envoy_admin))
    with Supervisor(folder / "logs") as supervisor:
        for program in programs:
            supervisor.start(program)
        supervisor.wait_ready()
        pids = {program.name: supervisor.pid(program.name) for program in programs}
        yield Stage(port=ports.envoy, replica_ports=_replica_ports(ports), pids=pids)


def _write_configuration(
    system: System, policy: Path, shape: EngineShape, time_factor: float, ports: Ports, folder: Path
) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    text = scaled_policy(ports.in_policy(policy.read_text()), time_factor)
    (folder / "policy.yaml").write_text(text)
    loaded = load_policy(text.encode(), str(policy))
    slots = shape.slots * REPLICAS
    document = configuration(system, loaded, _addresses(ports), slots=slots, time_factor=time_factor)
    (folder / "envoy.yaml").write_text(dump(document))


def _replica_ports(ports: Ports) -> tuple[int, ...]:
    """The ports that `policy.yaml` names as endpoints, in its order."""
    return (ports.trtllm_standard, ports.trtllm_fast)


def _replicas(ports: Ports, shape: EngineShape, time_factor: float) -> Iterator[Program]:
    options = ["--time-factor", str(time_factor), "--shape", msgspec.json.encode(shape).decode()]
    for number, port in enumerate(_replica_ports(ports)):
        yield Program(
            name=f"simulation-{number}",
            command=[sys.executable, "-m", "bench.overload.simulated_server", "--port", str(port), *options],
            ready_url=f"http://127.0.0.1:{port}/health",
        )


def _sidecar(ports: Ports, folder: Path) -> Program:
    return Program(
        name=SIDECAR,
        command=[sys.executable, "-m", "headgate_cli", "serve"],
        environment={
            "HEADGATE_POLICY": str(folder / "policy.yaml"),
            "HEADGATE_EXTPROC_ADDRESS": f"127.0.0.1:{ports.extproc}",
            "HEADGATE_RATELIMIT_ADDRESS": f"127.0.0.1:{ports.ratelimit}",
            "HEADGATE_RATELIMIT_HTTP_ADDRESS": f"127.0.0.1:{ports.ratelimit_http}",
            "HEADGATE_ADMIN_ADDRESS": f"127.0.0.1:{ports.admin}",
        },
        ready_url=f"http://127.0.0.1:{ports.admin}/readyz",
    )


def _addresses(ports: Ports) -> EnvoySettings:
    return EnvoySettings(
        listen=f"127.0.0.1:{ports.envoy}",
        admin=f"127.0.0.1:{ports.envoy_admin}",
        extproc=f"127.0.0.1:{ports.extproc}",
        ratelimit=f"127.0.0.1:{ports.ratelimit}",
        accesslog=f"127.0.0.1:{ports.extproc}",
    )


def _record(port: int) -> ReplicaRecord:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/record", timeout=10.0) as answer:
        return msgspec.json.decode(answer.read(), type=ReplicaRecord)
