"""Long prompts through the real Envoy and one sidecar: requests per second, and the sidecar's CPU for each."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from bench.latency.stage import ENVOY_WITH_HEADGATE, SIDECAR, running
from bench.load import Load, run_load
from bench.percentiles import Percentiles
from bench.resources import cpu_seconds

_CONNECTIONS = 8
_WARMUP_SECONDS = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class EndToEnd:
    """A closed loop of eight connections with one body; `alone_rps` is the same Envoy without Headgate's filters."""

    body_bytes: int
    rps: float
    alone_rps: float
    latency: Percentiles
    sidecar_cpu_us: float
    envoy_cpu_us: float


def measure(body: bytes, seconds: float, folder: Path) -> EndToEnd:
    """Start everything, put the load on Envoy alone and on Envoy with Headgate, stop everything.

    Raises:
        LoadFailed: an answer was not the expected one.
    """
    with running(folder) as stage:
        alone = run_load(_load(stage.ports.envoy_alone, body, seconds, b"", b"\r\nx-headgate-decision:"))
        before = {name: cpu_seconds(pid) for name, pid in stage.pids.items()}
        result = run_load(_load(stage.ports.envoy, body, seconds, b"\r\nx-headgate-decision: admit\r\n", b""))
        used = {name: cpu_seconds(pid) - before[name] for name, pid in stage.pids.items()}
    return EndToEnd(
        body_bytes=len(body),
        rps=len(result.latencies) / seconds,
        alone_rps=len(alone.latencies) / seconds,
        latency=Percentiles.of_seconds(result.latencies),
        sidecar_cpu_us=used[SIDECAR] / result.requests_total * 1e6,
        envoy_cpu_us=used[ENVOY_WITH_HEADGATE] / result.requests_total * 1e6,
    )


def _load(port: int, body: bytes, seconds: float, expected: bytes, forbidden: bytes) -> Load:
    head = (
        "POST /v1/chat/completions HTTP/1.1\r\nhost: bench\r\nauthorization: Bearer bench\r\n"
        f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    )
    return Load(
        port=port,
        request=head.encode() + body,
        expected=expected,
        forbidden=forbidden,
        seconds=seconds,
        warmup_seconds=_WARMUP_SECONDS,
        connections=_CONNECTIONS,
    )
