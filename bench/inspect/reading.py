"""What one body costs: reading and weighing it, editing it, against loading and dumping all of its JSON."""

from __future__ import annotations

import json
import time
import tracemalloc
from collections.abc import Callable
from dataclasses import dataclass

from extproc.headers import Headers
from extproc.inspection import inspect
from extproc.inspection.request import InferenceRequest
from extproc.inspection.target import parse_target
from extproc.rewrite import rewrite
from extproc.routing import Destination
from headgate.policy.model import Cluster, Frontend, Protocol

_TARGET = parse_target("POST", "/v1/chat/completions")
_NO_HEADERS = Headers(())
_FRONTEND = Frontend(protocol=Protocol.OPENAI, model="meta/llama-3.1-8b", endpoints=("h:1",), envoy_cluster="standard")
_PLACE = Destination(
    cluster=Cluster(name="standard", frontends={Protocol.OPENAI: _FRONTEND}),
    frontend=_FRONTEND,
    max_output_tokens=700,
    charged_tokens=0,
    prompt_tokens=0,
    is_degraded=False,
    reason="",
)
_BATCH_SECONDS = 0.002


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """Microseconds of each step, the fastest of many tries, and what they allocate at most, in bytes."""

    kind: str
    body_bytes: int
    read_us: float
    edit_us: float
    json_us: float
    allocated_bytes: int
    json_allocated_bytes: int

    @property
    def total_us(self) -> float:
        """Read, weighed and edited."""
        return self.read_us + self.edit_us

    @property
    def speedup(self) -> float:
        """How many times that fits into `json.loads` and `json.dumps`."""
        return self.json_us / self.total_us


def cost(kind: str, body: bytes, tries: int) -> Cost:
    """Measure one body; the three take turns, so that a busy moment hits all of them.

    Raises:
        AssertionError: the edited body is not what it should be.
    """
    request = inspect(_TARGET, _NO_HEADERS, body)
    _check(body, _edit(request, body))
    steps: list[Callable[[], object]] = [
        lambda: inspect(_TARGET, _NO_HEADERS, body),
        lambda: _edit(request, body),
        lambda: json.dumps(json.loads(body)),
    ]
    best = [float("inf")] * len(steps)
    for _ in range(tries):
        best = [min(seconds, _seconds(step)) for seconds, step in zip(best, steps, strict=True)]
    return Cost(
        kind=kind,
        body_bytes=len(body),
        read_us=best[0] * 1e6,
        edit_us=best[1] * 1e6,
        json_us=best[2] * 1e6,
        allocated_bytes=_allocated(lambda: _edit(inspect(_TARGET, _NO_HEADERS, body), body)),
        json_allocated_bytes=_allocated(steps[2]),
    )


def _edit(request: InferenceRequest, body: bytes) -> bytes | None:
    return rewrite(_TARGET, _NO_HEADERS, request, _PLACE, body).body


def _check(body: bytes, edited: bytes | None) -> None:
    wanted = json.loads(body) | {"model": _FRONTEND.model, "max_tokens": _PLACE.max_output_tokens}
    if edited is None or json.loads(edited) != wanted:
        raise AssertionError("the edit is not the intended one")


def _seconds(step: Callable[[], object]) -> float:
    """The mean of as many calls as fill a moment that a clock can measure."""
    started_at = time.perf_counter()
    calls = 0
    while (passed := time.perf_counter() - started_at) < _BATCH_SECONDS:
        step()
        calls += 1
    return passed / calls


def _allocated(step: Callable[[], object]) -> int:
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        tracemalloc.reset_peak()
        step()
        return tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()
