"""The service put together from its parts: the one place of this package that constructs concrete things."""

from __future__ import annotations

import time
from collections.abc import Callable

from extproc.affinity import AffinityNames
from extproc.desk import AdmissionDesk
from extproc.events import Decision
from extproc.gauges import watch_room
from extproc.report import Reporter
from extproc.service import ExtProcService
from extproc.signals import ClusterSignals
from headgate.errors import SettingsError
from headgate.lifecycle import Process
from headgate.store import Scope
from headgate.store.memory import MemoryStore


def assemble(process: Process) -> ExtProcService:
    """The service of this process, its gauges registered."""
    store = MemoryStore(time.monotonic)
    desk = AdmissionDesk(store)
    policy = process.policy.current
    signals = ClusterSignals(policy, store, desk.queue)
    service = ExtProcService(
        policy=policy,
        desk=desk,
        signals=signals,
        report=Reporter(process.metrics, _trace(process)).report,
        clock=time.perf_counter,
        region=process.settings.region,
        affinity=AffinityNames(process.settings.affinity_salt),
    )
    metrics = process.metrics
    metrics.watch("open_streams", "Requests in flight.", (), lambda: [((), service.open_streams)])
    metrics.watch(
        "saturation",
        "How full a cluster is, 0 to 1.",
        ("cluster",),
        lambda: [((name,), signals.saturation(name)) for name in policy().clusters],
    )
    metrics.watch(
        "queue_depth",
        "Requests waiting for a cluster.",
        ("cluster", "tier"),
        lambda: list(desk.queue.depths().items()),
    )
    metrics.watch(
        "leases",
        "Slots in use.",
        ("scope", "name"),
        lambda: [
            *(((Scope.TIER, name), store.in_flight(Scope.TIER, name)) for name in policy().tiers),
            *(((Scope.CLUSTER, name), store.in_flight(Scope.CLUSTER, name)) for name in policy().clusters),
        ],
    )
    watch_room(metrics, policy, store)
    return service


def _trace(process: Process) -> Callable[[Decision, float], None] | None:
    if not process.settings.otlp_endpoint:
        return None
    try:
        from extproc.spans import DecisionSpans
    except ImportError:
        raise SettingsError("otlp_endpoint: spans need the extra `otel`: pip install 'headgate[otel]'") from None
    spans = DecisionSpans(process.settings.otlp_endpoint)
    process.parts.append(spans)
    return spans.report
