"""A real Triton for the whole session, and the import paths of the code that runs inside it."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from headgate_cli.home import home, triton_lock, triton_models
from headgate_cli.ports import Ports
from headgate_cli.triton_environment import TritonEnvironment, new_shm_prefix, remove_shared_memory

for folder in ("best_tensorrt_llm/1", "sentiment/1"):
    sys.path.append(str(triton_models() / folder))


@dataclass(frozen=True, slots=True, kw_only=True)
class RunningTriton:
    """Where the server listens, and questions about its engines."""

    http: httpx.Client
    grpc_address: str
    metrics_url: str

    def metrics(self) -> str:
        return httpx.get(self.metrics_url).text

    def sample(self, series: str) -> float:
        """The value of one series, written as in the exposition: name{labels}."""
        found = re.search(rf"^{re.escape(series)} (\S+)$", self.metrics(), re.MULTILINE)
        assert found, f"no series {series}"
        return float(found[1])

    def requests(self, engine: str, state: str) -> float:
        """How many requests an engine has in a state: active, max, scheduled, context, waiting."""
        return self.sample(f'nv_trt_llm_request_metrics{{model="{engine}",request_type="{state}",version="1"}}')

    def wait_until(self, holds: Callable[[], bool], what: str, seconds: float = 10.0) -> None:
        give_up_at = time.monotonic() + seconds
        while not holds():
            assert time.monotonic() < give_up_at, f"still not so after {seconds} s: {what}"
            time.sleep(0.01)

    def wait_until_idle(self, engine: str) -> None:
        self.wait_until(
            lambda: self.requests(engine, "active") + self.requests(engine, "waiting") == 0, f"{engine} is idle"
        )


@pytest.fixture(scope="session")
def triton(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningTriton]:
    environment = TritonEnvironment(home() / "triton")
    environment.ensure(triton_lock(), print)
    ports, shm_prefix = Ports.free(), new_shm_prefix()
    command = environment.command(
        triton_models(),
        http_port=ports.triton_http,
        grpc_port=ports.triton_grpc,
        metrics_port=ports.triton_metrics,
        shm_prefix=shm_prefix,
    )
    log = tmp_path_factory.mktemp("triton") / "triton.log"
    with log.open("wb") as output:
        process = subprocess.Popen(command, env=environment.environ(), stdout=output, stderr=output)
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{ports.triton_http}", timeout=30) as http:
            running = RunningTriton(
                http=http,
                grpc_address=f"127.0.0.1:{ports.triton_grpc}",
                metrics_url=f"http://127.0.0.1:{ports.triton_metrics}/metrics",
            )
            running.wait_until(lambda: is_ready(http, process, log), "Triton is ready", 60)
            yield running
        # Only now: with an idle connection open Triton waits for it as long as it may, and then just drops everything.
        process.terminate()
        assert process.wait(15) == 0
        assert remove_shared_memory(shm_prefix) == 0
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
        remove_shared_memory(shm_prefix)


def is_ready(http: httpx.Client, process: subprocess.Popen[bytes], log: Path) -> bool:
    assert process.poll() is None, f"Triton has ended:\n{log.read_text(errors='replace')[-3000:]}"
    try:
        return http.get("/v2/health/ready").status_code == 200
    except httpx.TransportError:
        return False
