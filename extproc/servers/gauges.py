"""What the model servers said, as metrics; a cluster whose servers said nothing lately has no series but its age.

A server that is not there is one that is not ready.
"""

from __future__ import annotations

from collections.abc import Callable

from extproc.servers.poller import ServerPoller
from extproc.servers.reading import Reading
from extproc.servers.watch import Timing
from headgate.metrics import Metrics, Sample

_GAUGES: tuple[tuple[str, str, Callable[[Reading], float | None]], ...] = (
    ("server_queue_depth", "Requests in the servers' own queues.", lambda reading: reading.waiting),
    ("server_running_requests", "Requests the servers work on.", lambda reading: reading.running),
    ("server_slots", "Requests the servers can work on at once.", lambda reading: reading.slots),
    ("server_kv_cache_usage", "Used share of the key/value caches, 0 to 1.", lambda reading: reading.kv_cache_usage),
    ("server_gpu_utilization", "Of the busiest GPUs, 0 to 1.", lambda reading: reading.gpu_utilization),
    ("server_queue_seconds", "Mean time in the servers' own queues lately.", lambda reading: reading.queue_seconds),
    ("server_ready", "1 while all servers take requests.", lambda reading: reading.is_ready),
)


def show_servers(metrics: Metrics, servers: ServerPoller, timing: Timing) -> None:
    """Register one gauge for each thing a server may say, and how old what it said is."""
    for name, documentation, value in _GAUGES:
        metrics.watch(name, documentation, ("cluster",), _samples(servers, value))
    metrics.watch(
        "signal_age_seconds",
        "Since a cluster's servers last said how they are: the oldest of them.",
        ("cluster",),
        lambda: [((name,), servers.age_seconds(name)) for name in servers.clusters],
    )
    metrics.watch(
        "signal_stale_seconds",
        "The age from which it does not count any more.",
        (),
        lambda: [((), timing.stale_seconds)],
    )


def _samples(servers: ServerPoller, value: Callable[[Reading], float | None]) -> Callable[[], list[Sample]]:
    def samples() -> list[Sample]:
        said = [(name, reading) for name in servers.clusters if (reading := servers.reading(name)) is not None]
        return [((name,), float(number)) for name, reading in said if (number := value(reading)) is not None]

    return samples
