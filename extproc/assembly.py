"""The service put together from its parts: the one place of this package that constructs concrete things."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from extproc.affinity import AffinityNames
from extproc.capacity import CapacityTracker
from extproc.desk import AdmissionDesk
from extproc.estimates import Estimates
from extproc.events import Decision
from extproc.gauges import watch_clusters, watch_room
from extproc.live import LiveSections
from extproc.recent import RecentDecisions
from extproc.report import Reporter
from extproc.servers.gauges import show_servers
from extproc.servers.poller import ServerPoller
from extproc.servers.watch import Timing
from extproc.service import ExtProcService
from extproc.signals import ClusterSignals
from extproc.terms import TermsInForce
from extproc.tokenizer import Tokenizers
from headgate.errors import SettingsError
from headgate.lifecycle import Process
from headgate.live.window import RecentRequests
from headgate.metrics import Metrics
from headgate.policy.model import Policy
from headgate.record import RequestRecord
from headgate.redis.url import read_redis_url
from headgate.settings import Settings
from headgate.store import Store
from headgate.store.memory import MemoryStore

if TYPE_CHECKING:
    from headgate.store.redis.store import RedisStore


def assemble(process: Process) -> ExtProcService:
    """The service of this process, its gauges registered."""
    store = _store(process)
    policy = process.policy.current
    servers = _poller(process)
    capacity = CapacityTracker(policy, store.elsewhere)
    terms = TermsInForce(policy, capacity.request_limit)
    desk = AdmissionDesk(store, terms.as_of_now)
    process.policy.on_change(lambda _: desk.limits_changed())
    signals = ClusterSignals(policy, store, desk.queue, servers.load, capacity)

    def learn(record: RequestRecord) -> None:
        # The next one has its slot by now.
        in_flight, now = store.usage(record.cluster).requests, time.monotonic()
        # Envoy tells of finished requests in batches.
        ended_at = now - record.age_seconds(time.time())
        if capacity.learn(record, in_flight, servers.load(record.cluster), now, ended_at=ended_at):
            desk.recheck(record.cluster)

    decisions, reporter = RecentDecisions(time.time), Reporter(process.metrics, _trace(process))

    def report(decision: Decision, decision_seconds: float) -> None:
        reporter.report(decision, decision_seconds)
        decisions.note(decision)

    requests = RecentRequests(time.monotonic, policy)
    estimates, tokenizers = Estimates(), Tokenizers()
    process.parts.append(tokenizers)
    process.records.follow(learn)
    process.records.follow(estimates.learn)
    process.records.follow(requests.note)
    LiveSections(
        policy=policy,
        store=store,
        queue=desk.queue,
        signals=signals,
        servers=servers,
        decisions=decisions,
        requests=requests,
    ).show_on(process.live)
    service = ExtProcService(
        policy=policy,
        desk=desk,
        signals=signals,
        report=report,
        clock=time.perf_counter,
        region=process.settings.region,
        affinity=AffinityNames(process.settings.affinity_salt),
        estimates=estimates,
        count=tokenizers.count,
    )
    process.metrics.watch("open_streams", "Requests in flight.", (), lambda: [((), service.open_streams)])
    process.metrics.watch(
        "token_correction",
        "What a model's byte estimate of prompt tokens is multiplied with, as learnt.",
        ("model",),
        lambda: [((name,), estimates.correction(name).factor) for name in policy().models],
    )
    watch_clusters(process.metrics, policy, signals, desk.queue)
    watch_room(process.metrics, policy, store)
    return service


def _poller(process: Process) -> ServerPoller:
    settings = process.settings
    timing = Timing(
        interval_seconds=settings.signal_interval_seconds,
        timeout_seconds=settings.signal_timeout_seconds,
        stale_seconds=settings.signal_stale_seconds,
    )
    errors = process.metrics.signal_errors
    servers = ServerPoller(timing, time.monotonic, lambda cluster: errors.labels(cluster).inc())
    process.policy.on_change(servers.follow)
    process.parts.append(servers)
    show_servers(process.metrics, servers, timing)
    return servers


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
