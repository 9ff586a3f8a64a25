"""The service put together from its parts: the one place of this package that constructs concrete things."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from extproc.affinity import AffinityNames
from extproc.capacity import CapacityTracker
from extproc.desk import AdmissionDesk
from extproc.events import Decision
from extproc.gauges import watch_room
from extproc.report import Reporter
from extproc.service import ExtProcService
from extproc.signals import ClusterSignals
from headgate.errors import SettingsError
from headgate.lifecycle import Process
from headgate.metrics import Metrics
from headgate.policy.model import Policy
from headgate.record import RequestRecord
from headgate.redis.url import read_redis_url
from headgate.settings import Settings
from headgate.store import Scope, Store
from headgate.store.memory import MemoryStore

if TYPE_CHECKING:
    from headgate.store.redis.store import RedisStore


def assemble(process: Process) -> ExtProcService:
    """The service of this process, its gauges registered."""
    store = _store(process)
    policy = process.policy.current
    capacity = CapacityTracker(policy)
    desk = AdmissionDesk(store, capacity.as_of_now)
    signals = ClusterSignals(policy, store, desk.queue, capacity=capacity)

    def learn(record: RequestRecord) -> None:
        in_flight = store.usage(record.cluster).requests + 1
        if capacity.learn(record, in_flight, None, time.monotonic()):
            desk.recheck(record.cluster)

    process.records.follow(learn)
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
        "cluster_limit",
        "Requests a cluster runs at once, by the policy or as learnt; nothing where there is no limit.",
        ("cluster",),
        lambda: [
            ((cluster.name,), limit)
            for cluster in policy().clusters.values()
            if (limit := signals.request_limit(cluster)) is not None
        ],
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


def _store(process: Process) -> Store:
    if process.settings.store == "memory":
        _watch(process.metrics, lambda: True, lambda: 1)
        return MemoryStore(time.monotonic)
    store = _redis_store(process.settings, process.policy.current, process.metrics)
    process.parts.append(store)
    return store


def _redis_store(settings: Settings, policy: Callable[[], Policy], metrics: Metrics) -> RedisStore:
    try:
        from headgate.redis.connection import connect
        from headgate.store.redis.store import RedisStore
    except ModuleNotFoundError:
        raise SettingsError("store: redis needs the extra: pip install 'headgate[redis]'") from None

    def observe(seconds: float, outcome: str) -> None:
        metrics.store_call_seconds.labels().observe(seconds)
        if outcome != "answered":
            metrics.store_errors.labels(outcome).inc()

    store = RedisStore(
        connect(read_redis_url(settings.redis_url)),
        on_failure=lambda: policy().on_store_failure,
        clock=time.monotonic,
        lease_seconds=settings.lease_seconds,
        observe=observe,
    )
    _watch(metrics, lambda: store.is_answering, lambda: store.sidecars)
    return store


def _watch(metrics: Metrics, is_answering: Callable[[], bool], sidecars: Callable[[], int]) -> None:
    metrics.watch("store_answers", "1 while the store answers.", (), lambda: [((), is_answering())])
    metrics.watch("store_sidecars", "Sidecars that share the store.", (), lambda: [((), sidecars())])
