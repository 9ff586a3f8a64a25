"""One system under one load, once: start it, put the load on, collect what clients and replicas saw."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from bench.overload.client import ClientPlan, ClientResult
from bench.overload.outcome import Outcome
from bench.overload.plan import Plan
from bench.overload.record import ReplicaRecord
from bench.overload.stage import Stage, running
from bench.overload.systems import System
from bench.overload.workload import Arrival
from bench.resources import busy_seconds, cpu_seconds
from headgate.errors import HeadgateError

_GRACE_SECONDS = 30.0


class ClientsFailed(HeadgateError):  # noqa: N818  (says what happened)
    """Raised when the process with the clients did not bring its outcomes home; shows why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """Everything one run gave.

    Attributes:
        records: of the replicas, their seconds turned into those of the run.
        cpu_cores: name of the process -> cores it kept busy on average; `others` is what is no part of the benchmark.
    """

    load: float
    system: System
    outcomes: list[Outcome]
    records: list[ReplicaRecord]
    cpu_cores: dict[str, float]


def measure(plan: Plan, load: float, system: System, arrivals: Sequence[Arrival], folder: Path) -> Cell:
    """Run it.

    Args:
        folder: for configurations, logs and the raw data.

    Raises:
        ProcessFailed: a part did not start.
        ClientsFailed: the clients' process broke.
    """
    with running(system, plan.policy, plan.shape, plan.time_factor, folder) as stage:
        before = _cpu(stage)
        clients = _run_clients(plan, stage.port, arrivals)
        used = {name: seconds - before[name] for name, seconds in _cpu(stage).items()}
        records = [record.since(clients.started_at * plan.time_factor) for record in stage.records()]
    used["clients"] = clients.cpu_seconds
    used["others"] = max(0.0, used.pop("machine") - sum(used.values()))
    wall_seconds = plan.total_seconds / plan.time_factor
    cell = Cell(
        load=load,
        system=system,
        outcomes=clients.outcomes,
        records=records,
        cpu_cores={name: seconds / wall_seconds for name, seconds in used.items()},
    )
    (folder / "raw.json").write_bytes(msgspec.json.encode(cell))
    return cell


def _run_clients(plan: Plan, port: int, arrivals: Sequence[Arrival]) -> ClientResult:
    wanted = ClientPlan(port=port, time_factor=plan.time_factor, seconds=plan.total_seconds, arrivals=list(arrivals))
    process = subprocess.run(
        [sys.executable, "-m", "bench.overload.client"],
        input=msgspec.json.encode(wanted),
        capture_output=True,
        timeout=plan.total_seconds / plan.time_factor + _GRACE_SECONDS,
        check=False,
    )
    if process.returncode:
        raise ClientsFailed(process.stderr.decode(errors="replace").strip())
    return msgspec.json.decode(process.stdout, type=ClientResult)


def _cpu(stage: Stage) -> dict[str, float]:
    processes = {name: cpu_seconds(pid) for name, pid in stage.pids.items()}
    return {**processes, "bench": cpu_seconds(os.getpid()), "machine": busy_seconds()}
