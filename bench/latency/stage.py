"""All that runs during the benchmark: Envoy alone, Envoy with Headgate, the sidecar, and one upstream for both."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.latency.baseline import without_headgate
from bench.latency.upstream import upstream
from headgate.policy.load import load_policy
from headgate_cli.ports import Ports
from headgate_cli.processes import Program, Supervisor
from headgate_cli.render.envoy import bootstrap
from headgate_cli.render.settings import EnvoySettings
from headgate_cli.render.yaml_text import dump
from headgate_cli.stack import envoy_binary

SIDECAR = "headgate"
ENVOY_ALONE = "envoy-alone"
ENVOY_WITH_HEADGATE = "envoy-with-headgate"
UPSTREAM = "upstream"

_POLICY = Path(__file__).with_name("policy.yaml")
_MODEL_CLUSTER = "standard"


@dataclass(frozen=True, slots=True, kw_only=True)
class StagePorts(Ports):
    """The ports of a stack, and those only the benchmark has; its upstream stands where the policy expects a model."""

    envoy_alone: int = 10001
    envoy_alone_admin: int = 9902
    upstream_admin: int = 9903


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """Where things are while everything runs; `pids` by the names above."""

    ports: StagePorts
    pids: Mapping[str, int]

    @property
    def admin_url(self) -> str:
        """The sidecar's admin side."""
        return f"http://127.0.0.1:{self.ports.admin}"


@contextmanager
def running(folder: Path) -> Iterator[Stage]:
    """Start everything on free ports and wait until it is ready; the end of the block leaves no process.

    Args:
        folder: for configurations and logs.

    Raises:
        ProcessFailed: something did not start.
    """
    ports = StagePorts.free()
    programs = _programs(ports, _write_configuration(ports, folder))
    with Supervisor(folder / "logs") as supervisor:
        for program in programs:
            supervisor.start(program)
        supervisor.wait_ready()
        yield Stage(ports=ports, pids={program.name: supervisor.pid(program.name) for program in programs})


def _write_configuration(ports: StagePorts, folder: Path) -> Path:
    folder = folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    text = ports.in_policy(_POLICY.read_text())
    policy = load_policy(text.encode(), str(_POLICY))
    rendered = bootstrap(policy, _addresses(ports, ports.envoy, ports.envoy_admin))
    alone = bootstrap(policy, _addresses(ports, ports.envoy_alone, ports.envoy_alone_admin))
    files = {
        "policy": text,
        ENVOY_WITH_HEADGATE: dump(rendered),
        ENVOY_ALONE: dump(without_headgate(alone, _MODEL_CLUSTER)),
        UPSTREAM: dump(upstream(ports.trtllm_standard, ports.upstream_admin)),
    }
    for name, content in files.items():
        (folder / f"{name}.yaml").write_text(content)
    return folder


def _addresses(ports: StagePorts, listen: int, admin: int) -> EnvoySettings:
    return EnvoySettings(
        listen=f"127.0.0.1:{listen}",
        admin=f"127.0.0.1:{admin}",
        extproc=f"127.0.0.1:{ports.extproc}",
        ratelimit=f"127.0.0.1:{ports.ratelimit}",
        accesslog=f"127.0.0.1:{ports.extproc}",
    )


def _programs(ports: StagePorts, folder: Path) -> list[Program]:
    # Two workers, as `headgate up` starts Envoy; the upstream has so little to do that one serves it.
    return [
        _envoy(UPSTREAM, folder, ports.upstream_admin, workers=1),
        _sidecar(ports, folder),
        _envoy(ENVOY_ALONE, folder, ports.envoy_alone_admin, workers=2),
        _envoy(ENVOY_WITH_HEADGATE, folder, ports.envoy_admin, workers=2),
    ]


def _sidecar(ports: StagePorts, folder: Path) -> Program:
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


def _envoy(name: str, folder: Path, admin_port: int, *, workers: int) -> Program:
    configuration = str(folder / f"{name}.yaml")
    options = ["--disable-hot-restart", "--concurrency", str(workers), "--log-level", "warning"]
    return Program(
        name=name,
        command=[str(envoy_binary()), "-c", configuration, *options],
        ready_url=f"http://127.0.0.1:{admin_port}/ready",
    )
