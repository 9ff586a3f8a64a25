"""Real processes around one slow upstream: sidecars and Envoys, started, killed and started again under load."""

from __future__ import annotations

import asyncio
import hashlib
import os
import random
import signal
import socket
import sys
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import httpx
import msgspec
from prometheus_client.parser import text_string_to_metric_families

from headgate.policy.load import load_policy
from headgate_cli.ports import Ports
from headgate_cli.processes import Program, Supervisor
from headgate_cli.render.envoy import bootstrap
from headgate_cli.render.settings import EnvoySettings
from headgate_cli.render.yaml_text import dump
from headgate_cli.stack import envoy_binary, envoy_program
from tests.chaos.crowd import Visit, send
from tests.chaos.script import Script
from tests.chaos.upstream import Record

PATIENCE_SECONDS = 30.0


async def until(holds: Callable[[], bool | Awaitable[bool]], what: str, seconds: float = PATIENCE_SECONDS) -> None:
    """Wait until a condition, plain or awaitable, holds."""
    give_up_at = time.monotonic() + seconds
    while True:
        result = holds()
        if await result if isinstance(result, Awaitable) else result:
            return
        assert time.monotonic() < give_up_at, f"not within {seconds} s: {what}"
        await asyncio.sleep(0.05)


def free_ports() -> Ports:
    """Below those the kernel gives to outgoing connections: a part that is killed finds its own again."""
    names = [field.name for field in fields(Ports)]
    chance = random.SystemRandom()
    found: list[int] = []
    while len(found) < len(names):
        port = chance.randrange(10_000, 32_000)
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        if port not in _given:
            _given.add(port)
            found.append(port)
    return Ports(**dict(zip(names, found, strict=True)))


_given: set[int] = set()


def tenants(**tiers: str) -> str:
    """The policy's tenants, tier by name; the key of a tenant is its name."""
    keys = {name: hashlib.sha256(name.encode()).hexdigest() for name in tiers}
    return "\n".join(f'  {name}: {{tier: {tier}, api_key_sha256: ["{keys[name]}"]}}' for name, tier in tiers.items())


class Process:
    """One child process."""

    def __init__(self, program: Program, logs: Path) -> None:
        self.program = program
        self._supervisor = Supervisor(logs)
        self.log = self._supervisor.log(program.name)
        self._supervisor.start(program)
        self._pid = self._supervisor.pid(program.name)

    def wait_ready(self) -> None:
        """Wait until it answers."""
        self._supervisor.wait_ready()

    def send(self, number: signal.Signals) -> None:
        """Send it a signal."""
        os.kill(self._pid, number)

    @property
    def has_ended(self) -> bool:
        """Whether it is gone."""
        return self._supervisor.first_ended() is not None

    def stop(self) -> None:
        """See it gone."""
        self._supervisor.stop()


class Sidecar:
    """`headgate serve`."""

    def __init__(self, ports: Ports) -> None:
        self.ports = ports
        self.admin_url = f"http://127.0.0.1:{ports.admin}"

    def program(self, name: str, policy: Path, environment: Mapping[str, str]) -> Program:
        ports = self.ports
        addresses = {
            "HEADGATE_POLICY": str(policy),
            "HEADGATE_EXTPROC_ADDRESS": f"127.0.0.1:{ports.extproc}",
            "HEADGATE_RATELIMIT_ADDRESS": f"127.0.0.1:{ports.ratelimit}",
            "HEADGATE_RATELIMIT_HTTP_ADDRESS": f"127.0.0.1:{ports.ratelimit_http}",
            "HEADGATE_ADMIN_ADDRESS": f"127.0.0.1:{ports.admin}",
        }
        return Program(
            name=name,
            command=[sys.executable, "-m", "headgate_cli", "serve"],
            environment={**addresses, **environment},
            ready_url=f"{self.admin_url}/readyz",
        )

    async def samples(self, name: str) -> list[tuple[Mapping[str, str], int]]:
        """A metric's labels and values."""
        async with httpx.AsyncClient(timeout=PATIENCE_SECONDS) as client:
            text = (await client.get(f"{self.admin_url}/metrics")).text
        families = text_string_to_metric_families(text)
        found = (sample for family in families for sample in family.samples if sample.name == name)
        return [(sample.labels, int(sample.value)) for sample in found]

    async def total(self, name: str) -> int:
        """A metric's values summed."""
        return sum(value for _, value in await self.samples(name))

    async def holds_nothing(self) -> bool:
        """Whether all ledgers read zero, nobody waits and no stream is open."""
        gauges = ("headgate_leases", "headgate_queue_depth", "headgate_open_streams")
        return not any([await self.total(gauge) for gauge in gauges])

    async def readiness(self) -> int:
        """The status a load balancer is told; 0 when nobody answers."""
        try:
            async with httpx.AsyncClient(timeout=PATIENCE_SECONDS) as client:
                return (await client.get(f"{self.admin_url}/readyz")).status_code
        except httpx.TransportError:
            return 0


@dataclass(frozen=True)
class Shape:
    """What may differ between stages.

    Attributes:
        policy: its text, with `BIG` and `SMALL` for the upstream's two ports.
        retry_on: in the place of the rendered retry policy's.
        idle_seconds: how long a model may be silent.
        sidecar_environment: more settings of the sidecars.
    """

    policy: str
    retry_on: str = ""
    idle_seconds: float = 4.0
    sidecar_environment: Mapping[str, str] | None = None


@dataclass(frozen=True)
class Cast:
    """What runs: sidecars with their processes, and Envoys' ports with theirs."""

    upstream: Process
    sidecars: list[tuple[Sidecar, Process]]
    envoys: list[tuple[int, Process]]

    @property
    def sidecar(self) -> Sidecar:
        """The first."""
        return self.sidecars[0][0]

    @property
    def port(self) -> int:
        """Where clients come to the first Envoy."""
        return self.envoys[0][0]


class Stage:
    """Everything that runs in one test; `close` ends all of it."""

    def __init__(self, folder: Path, shape: Shape) -> None:
        self._folder = folder
        self._shape = shape
        self._exit = ExitStack()
        ports = free_ports()
        self._upstream_ports = {"big": ports.trtllm_standard, "small": ports.trtllm_fast}
        self._visits: list[Visit] = []
        self._names: dict[str, int] = {}
        self.policy = folder / "policy.yaml"
        self.write_policy(shape.policy)

    async def hang_up(self) -> None:
        """Leave no client's connection."""
        for visit in self._visits:
            visit.leave()
        self._visits.clear()
        await asyncio.sleep(0)

    def close(self) -> None:
        """Leave no process."""
        self._exit.close()

    def write_policy(self, text: str) -> None:
        """Put a policy into the file the sidecars watch."""
        for name, port in self._upstream_ports.items():
            text = text.replace(f"127.0.0.1:{name.upper()}", f"127.0.0.1:{port}")
        self.policy.write_text(text)

    # the parts

    def start(self, sidecars: int = 1, envoys: int = 1) -> Cast:
        """All of them, side by side; each Envoy shares its requests out to all sidecars."""
        known = [Sidecar(free_ports()) for _ in range(sidecars)]
        upstream = self._begin(self._upstream())
        processes = [self._begin(self._sidecar(sidecar)) for sidecar in known]
        doors = [free_ports() for _ in range(envoys)]
        gates = [self._begin(self._envoy(known, ports)) for ports in doors]
        for process in (upstream, *processes, *gates):
            process.wait_ready()
        return Cast(
            upstream,
            list(zip(known, processes, strict=True)),
            [(ports.envoy, process) for ports, process in zip(doors, gates, strict=True)],
        )

    def restart_upstream(self) -> None:
        """A new one in the place of one that has ended."""
        self._begin(self._upstream()).wait_ready()

    def restart_sidecar(self, sidecar: Sidecar) -> None:
        """A new process in the place of one that has ended."""
        self._begin(self._sidecar(sidecar)).wait_ready()

    def _upstream(self) -> Program:
        ports = self._upstream_ports
        command = [sys.executable, "-m", "tests.chaos.upstream", *(f"{name}={port}" for name, port in ports.items())]
        return Program(
            name=self._name("upstream"), command=command, ready_url=f"http://127.0.0.1:{ports['big']}/record"
        )

    def _sidecar(self, sidecar: Sidecar) -> Program:
        return sidecar.program(self._name("headgate"), self.policy, self._shape.sidecar_environment or {})

    def _envoy(self, sidecars: Sequence[Sidecar], ports: Ports) -> Program:
        name = self._name("envoy")
        configuration = self._folder / f"{name}.yaml"
        configuration.write_text(dump(self._configuration(sidecars, ports.envoy, ports.envoy_admin)))
        return envoy_program(envoy_binary(), configuration, ports.envoy_admin, name)

    def _configuration(self, sidecars: Sequence[Sidecar], port: int, admin: int) -> dict[str, Any]:
        first = sidecars[0].ports
        settings = EnvoySettings(
            listen=f"127.0.0.1:{port}",
            admin=f"127.0.0.1:{admin}",
            extproc=f"127.0.0.1:{first.extproc}",
            ratelimit=f"127.0.0.1:{first.ratelimit}",
            accesslog=f"127.0.0.1:{first.extproc}",
            idle_seconds=self._shape.idle_seconds,
            # Two thousand at once on a busy machine: what is tested is not how soon a rate limit is judged.
            ratelimit_timeout_seconds=PATIENCE_SECONDS,
        )
        document = bootstrap(load_policy(self.policy.read_bytes(), "policy.yaml"), settings)
        for cluster in document["static_resources"]["clusters"]:
            if cluster["name"] in ("headgate_extproc", "headgate_ratelimit") and len(sidecars) > 1:
                _add_endpoints(cluster, [getattr(s.ports, cluster["name"].removeprefix("headgate_")) for s in sidecars])
        if self._shape.retry_on:
            _retry_on(document, self._shape.retry_on)
        return document

    def _begin(self, program: Program) -> Process:
        process = Process(program, self._folder)
        self._exit.callback(process.stop)
        return process

    def _name(self, part: str) -> str:
        number = self._names[part] = self._names.get(part, 0) + 1
        return f"{part}-{number}"

    async def send(self, port: int, visits: Sequence[Visit]) -> None:
        """Let clients come to an Envoy."""
        self._visits += visits
        await send(port, visits)

    # what the upstream says

    async def record(self, command: str = "record") -> Record:
        """What it has counted; after doing as told: open, close, forget."""
        async with httpx.AsyncClient(timeout=PATIENCE_SECONDS) as client:
            answer = await client.post(f"http://127.0.0.1:{self._upstream_ports['big']}/{command}")
        return msgspec.json.decode(answer.content, type=Record)

    async def running(self, name: str) -> int:
        """How many run now of `cluster:NAME`, `tenant:NAME` or `tier:NAME`."""
        return (await self.record()).running.get(name, 0)


def _add_endpoints(cluster: dict[str, Any], ports: Sequence[int]) -> None:
    localities = cluster["load_assignment"]["endpoints"][0]
    template = msgspec.json.encode(localities["lb_endpoints"][0])
    localities["lb_endpoints"] = [msgspec.json.decode(template) for _ in ports]
    for endpoint, port in zip(localities["lb_endpoints"], ports, strict=True):
        endpoint["endpoint"]["address"]["socket_address"]["port_value"] = port
    # As docs/operations.md tells those who put several sidecars behind one Envoy.
    cluster["health_checks"] = [
        {
            "timeout": "1s",
            "interval": "0.5s",
            "no_traffic_interval": "0.5s",
            "unhealthy_threshold": 1,
            "healthy_threshold": 1,
            "grpc_health_check": {"service_name": "readiness"},
        }
    ]


def _retry_on(document: dict[str, Any], conditions: str) -> None:
    manager = document["static_resources"]["listeners"][0]["filter_chains"][0]["filters"][0]["typed_config"]
    decided = manager["route_config"]["virtual_hosts"][0]["routes"][0]
    decided["route"]["retry_policy"]["retry_on"] = conditions


def script(number: int, tenant: str, tier: str, **changes: Any) -> Script:
    """What the upstream is told of a request."""
    return Script(request=str(number), tenant=tenant, tier=tier, **changes)
