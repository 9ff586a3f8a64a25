"""`make bench-ratelimit`: run everything, print a table, write `build/bench/ratelimit.json`."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import msgspec

from bench.machine import machine
from bench.percentiles import nearest_rank
from bench.ratelimit import servers
from bench.ratelimit.client import Asked, Asking
from bench.ratelimit.matching import match_nanoseconds
from bench.resources import cpu_seconds
from bench.result import write_result
from bench.spread import Spread

_ROUNDS = 3
_BUSY_REQUESTS = 6_000
_WARM_REQUESTS = 500
_CALM_REQUESTS = 2_500
_CALM_RATE = 250.0
_IN_FLIGHT = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """One server asked in one way.

    Attributes:
        cpu_microseconds: of the server's process, per request, in a closed loop.
        requests_per_second_per_core: what that CPU time allows.
    """

    cpu_microseconds: float
    requests_per_second_per_core: float
    p50_ms: float
    p99_ms: float
    p999_ms: float


def main() -> None:
    """Every server in turn, several times over, so that a busy moment of the machine meets them all."""
    trials: dict[str, list[Trial]] = {}
    with tempfile.TemporaryDirectory() as folder, servers.redis() as (_, redis_port):
        for _ in range(_ROUNDS):
            for descriptors in (1, 5):
                subjects: dict[str, AbstractContextManager[tuple[int, int]]] = {
                    "echo": servers.echo(),
                    "memory": servers.headgate(Path(folder)),
                    "redis": servers.headgate(Path(folder), redis_port),
                }
                for name, server in subjects.items():
                    with server as (pid, port):
                        trials.setdefault(f"{name}_{descriptors}", []).append(trial(pid, port, descriptors))
    keys = msgspec.json.decode(_output([sys.executable, "-m", "bench.ratelimit.keys"]), type=dict[str, float])
    matches = match_nanoseconds()
    figures = _figures(trials, matches, keys)
    _print(trials, matches, keys, figures)
    path = write_result("ratelimit", figures | {"machine": machine(), "trials": trials, "keys": keys, "match": matches})
    print(f"\nwritten to {path}")


def trial(pid: int, port: int, descriptors: int) -> Trial:
    """Ask one server: warm up, then as fast as it goes for its CPU time, then calmly for its latency."""
    _ask(Asking(port, descriptors, _WARM_REQUESTS, _IN_FLIGHT))
    before = cpu_seconds(pid)
    _ask(Asking(port, descriptors, _BUSY_REQUESTS, _IN_FLIGHT))
    used = (cpu_seconds(pid) - before) / _BUSY_REQUESTS
    calm = _ask(Asking(port, descriptors, _CALM_REQUESTS, rate_per_second=_CALM_RATE))
    ordered = sorted(calm.latencies)
    return Trial(
        cpu_microseconds=used * 1e6,
        requests_per_second_per_core=1 / used,
        p50_ms=nearest_rank(ordered, 50) * 1000,
        p99_ms=nearest_rank(ordered, 99) * 1000,
        p999_ms=nearest_rank(ordered, 99.9) * 1000,
    )


def _ask(asking: Asking) -> Asked:
    answer = _output([sys.executable, "-m", "bench.ratelimit.client"], msgspec.json.encode(asking))
    return msgspec.json.decode(answer, type=Asked)


def _output(command: list[str], text: bytes = b"") -> bytes:
    return subprocess.run(command, input=text, stdout=subprocess.PIPE, check=True, timeout=300).stdout


def _figures(trials: dict[str, list[Trial]], matches: dict[int, float], keys: dict[str, float]) -> dict[str, object]:
    # Each round's ratio is of two servers asked within the same seconds; the median of the rounds counts.
    def ratio(name: str, yardstick: str) -> float:
        pairs = zip(trials[name], trials[yardstick], strict=True)
        return Spread.of(one.cpu_microseconds / other.cpu_microseconds for one, other in pairs).median

    return {
        "cpu_ratio_to_echo_memory_1": ratio("memory_1", "echo_1"),
        "cpu_ratio_to_echo_memory_5": ratio("memory_5", "echo_5"),
        "cpu_ratio_to_echo_redis_1": ratio("redis_1", "echo_1"),
        "cpu_ratio_to_echo_redis_5": ratio("redis_5", "echo_5"),
        "p999_ms_redis_5": Spread.of(trial.p999_ms for trial in trials["redis_5"]).median,
        "match_cost_ratio_100k_over_10": matches[100_000] / matches[10],
        "bytes_per_key": keys["bytes_per_key"],
    }


def _print(
    trials: dict[str, list[Trial]], matches: dict[int, float], keys: dict[str, float], figures: dict[str, object]
) -> None:
    percentiles = " ".join(f"{part:>7}" for part in ("p50", "p99", "p99.9"))
    print(f"{'server, descriptors':20} {'CPU us/request':>24} {'requests/s/core':>16} {percentiles} ms")
    for name, rounds in sorted(trials.items()):
        cpu = Spread.of(trial.cpu_microseconds for trial in rounds)
        rate = Spread.of(trial.requests_per_second_per_core for trial in rounds).median
        times = [Spread.of(getattr(trial, part) for trial in rounds).median for part in ("p50_ms", "p99_ms", "p999_ms")]
        print(f"{name:20} {cpu.text(0):>24} {rate:>16.0f} " + " ".join(f"{time:7.2f}" for time in times))
    print("\nmatching, ns a request: " + ", ".join(f"{size:,}: {cost:.0f}" for size, cost in matches.items()))
    print(
        f"{keys['keys']:,.0f} keys in memory: {keys['bytes_per_key']:.0f} bytes each, "
        f"{keys['bytes_per_key_after_the_window']:.0f} once the window has passed\n"
    )
    for name, value in figures.items():
        print(f"{name} {value:.3f}")


if __name__ == "__main__":
    main()
