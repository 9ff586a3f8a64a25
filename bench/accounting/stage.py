"""What is measured: the accounting service as `headgate` runs it, and beside it the decision behind an Envoy."""

from __future__ import annotations

import json
import sys
import tempfile
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc

from bench.transport.edge import EXT_PROC, bootstrap
from bench.transport.stage import Stage, Subject, served, server_command
from headgate_cli.ports import Ports
from headgate_cli.processes import Program, Supervisor
from headgate_cli.stack import envoy_binary

_METHOD = "/envoy.service.accesslog.v3.AccessLogService/StreamAccessLogs"


@dataclass(frozen=True, slots=True)
class Accounting:
    """One running service, and how to feed and scrape it."""

    pid: int
    address: str
    admin_url: str

    def account(self, batches: Sequence[bytes]) -> None:
        """Send batches on one stream, as Envoy does; returns once all have been read."""
        with grpc.insecure_channel(self.address) as channel:
            for _ in channel.stream_stream(_METHOD)(iter(batches)):
                raise AssertionError("the service answers no batch")

    def scrape(self) -> bytes:
        """The metrics page."""
        with urllib.request.urlopen(f"{self.admin_url}/metrics", timeout=10.0) as page:
            return bytes(page.read())


@contextmanager
def accounting(request_log_share: float) -> Iterator[Accounting]:
    """`python -m accesslog` on the lean transport with the default policy; its log lines go to /dev/null."""
    ports = Ports.free()
    environment = {
        "HEADGATE_EXTPROC_ADDRESS": f"127.0.0.1:{ports.extproc}",
        "HEADGATE_ADMIN_ADDRESS": f"127.0.0.1:{ports.admin}",
        "HEADGATE_TRANSPORT": "lean",
        "HEADGATE_REQUEST_LOG_SHARE": str(request_log_share),
    }
    admin_url = f"http://127.0.0.1:{ports.admin}"
    with tempfile.TemporaryDirectory() as folder, Supervisor(Path(folder)) as supervisor:
        supervisor.log("accesslog").symlink_to("/dev/null")
        command = [sys.executable, "-m", "accesslog"]
        supervisor.start(
            Program(name="accesslog", command=command, environment=environment, ready_url=f"{admin_url}/readyz")
        )
        supervisor.wait_ready()
        yield Accounting(supervisor.pid("accesslog"), environment["HEADGATE_EXTPROC_ADDRESS"], admin_url)


@contextmanager
def decision() -> Iterator[Stage]:
    """The whole decision on the lean transport, asked by an Envoy."""
    ports = Ports.free()
    with (
        served(server_command(Subject.DECISION)) as (address, pid),
        tempfile.TemporaryDirectory() as folder,
        Supervisor(Path(folder)) as supervisor,
    ):
        listening = {(EXT_PROC, str(Subject.DECISION)): ports.envoy}
        path = Path(folder) / "envoy.json"
        path.write_text(
            json.dumps(bootstrap({Subject.DECISION: address}, listening, ports.ratelimit, ports.envoy_admin))
        )
        options = ["--disable-hot-restart", "--concurrency", "1", "--log-level", "warning"]
        ready_url = f"http://127.0.0.1:{ports.envoy_admin}/ready"
        supervisor.start(
            Program(name="envoy", command=[str(envoy_binary()), "-c", str(path), *options], ready_url=ready_url)
        )
        supervisor.wait_ready()
        yield Stage(subjects=[Subject.DECISION], ports=listening, pids={Subject.DECISION: pid})
