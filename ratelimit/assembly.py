"""The service put together from its parts: the one place of this package that constructs concrete things."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from headgate.errors import SettingsError
from headgate.http import HttpServer
from headgate.lifecycle import Listener, Part, Process
from headgate.redis.settings import RedisType
from headgate.transport import ConnectionAge, Service
from headgate.transport.tls import Tls
from ratelimit.charges import Charging, Store
from ratelimit.current import CurrentConfiguration
from ratelimit.directory import ConfigurationDirectory, Selection
from ratelimit.discovery import ControlPlane
from ratelimit.exposition import RatelimitCollector, response_times
from ratelimit.guarded import GuardedStore
from ratelimit.http import debug_application, http_application
from ratelimit.limiter import Modes
from ratelimit.limits import Code
from ratelimit.matching import Configuration
from ratelimit.memory import MemoryStore
from ratelimit.over_cache import OverLimitCache
from ratelimit.repeated import Repeated
from ratelimit.service import Answering, RateLimitService
from ratelimit.serving_settings import ServingSettings, TlsFiles
from ratelimit.settings import Backend, RatelimitSettings, read_ratelimit_settings
from ratelimit.settlement import Settlement
from ratelimit.stats import Stats
from ratelimit.statsd import StatsdReporter

if TYPE_CHECKING:
    from ratelimit.tracing import Tracing

HEALTH_NAME = "ratelimit"
_SWEEP_SECONDS = 0.05
_SWEPT_KEYS = 5_000
_PROBE_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Assembled:
    """The service, how it is served, and what has to run beside it, in the order of its start."""

    service: Service
    parts: Sequence[Part]
    serving: ServingSettings

    def listener(self, address: str) -> Listener:
        """The service on one address."""
        files, seconds = self.serving.tls, self.serving.max_connection_age_seconds
        return Listener(
            "ratelimit",
            address,
            [self.service],
            tls=_tls(files) if files is not None else None,
            max_age=ConnectionAge(seconds, self.serving.max_connection_age_grace_seconds) if seconds else None,
        )


def _tls(files: TlsFiles) -> Tls:
    authority = Path(files.client_authority) if files.client_authority else None
    return Tls(certificate=Path(files.certificate), key=Path(files.key), client_authority=authority)


def assemble(
    process: Process,
    variables: Mapping[str, str] = os.environ,
    *,
    debug_address: str | None = None,
    settles: bool = False,
) -> Assembled:
    """The service of this process; follows every reload of the policy and of the files.

    Args:
        debug_address: of the debug pages; None shows them next to `/json`.
        settles: whether this process hears of finished requests, so that token budgets can be put right.

    Raises:
        SettingsError: a setting cannot be used.
    """
    settings = read_ratelimit_settings(variables)
    current = _current(process, settings)
    stats = Stats(settings.near_limit_ratio, record=_recorder(process))
    memory = MemoryStore(time.time)
    store, guard = _store(settings, memory)
    tracing = _tracing(settings)
    if tracing is not None and guard is not None:
        store = tracing.traced_store(store)
    process.metrics.registry.register(RatelimitCollector(stats, lambda: len(memory)))
    settlement = _settlement(process, store) if settles else None
    statsd = StatsdReporter(settings.statsd, stats.named) if settings.statsd is not None else None
    service = RateLimitService(
        configuration=current,
        store=store,
        # A span is told its call's metadata only where a coroutine answers.
        store_waits=guard is not None or tracing is not None,
        stats=stats,
        answering=answering(settings),
        settlement=settlement,
        observe_seconds=_observer(process, statsd),
    )
    is_ready = _readiness(settings, current, guard)
    process.health.follow(HEALTH_NAME, is_ready)
    pages = http_application(service, lambda: process.health.is_serving and is_ready())
    debug = debug_application(lambda: current.whole, store, stats)
    if debug_address is None:
        pages.routes.extend(debug.routes)
    return Assembled(
        service.service() if tracing is None else tracing.traced(service.service()),
        [
            *_present(tracing),
            HttpServer(process.settings.ratelimit_http_address, pages),
            *_present(HttpServer(debug_address, debug) if debug_address else None),
            *_watching(settings, current, stats),
            *_upkeep(memory, guard),
            *_present(Repeated(statsd.report, statsd.flush_seconds, statsd.close) if statsd is not None else None),
            *_present(settlement),
        ],
        settings.serving,
    )


def _present(part: Part | None) -> list[Part]:
    return [] if part is None else [part]


def answering(settings: RatelimitSettings) -> Answering:
    """How requests are answered under these settings."""
    charging = Charging.SPARE_OTHERS if settings.stop_increment_when_over_limit else Charging.EACH
    return Answering(
        modes=Modes(shadow=settings.shadow_mode, quota=settings.quota_mode, charging=charging),
        header_names=settings.response_headers if settings.response_headers_enabled else None,
        dynamic_metadata=settings.response_dynamic_metadata,
    )


def redis_store(
    settings: RatelimitSettings, memory: MemoryStore, clock: Callable[[], float] | None = None
) -> GuardedStore:
    """The store in Redis behind its guard; nothing is connected yet.

    Args:
        clock: in place of Redis's own time, which a cluster does not offer.

    Raises:
        SettingsError: redis-py is not installed.
    """
    try:
        from headgate.redis.connection import connect
        from ratelimit.redis_store import RedisStore
    except ModuleNotFoundError:
        raise SettingsError("BACKEND_TYPE: redis needs the extra: pip install 'headgate[redis]'") from None
    is_cluster = RedisType.CLUSTER in {each.type for each in (settings.redis, settings.redis_per_second) if each}
    store = RedisStore(
        connect(settings.redis),
        per_second=connect(settings.redis_per_second) if settings.redis_per_second else None,
        prefix=settings.cache_key_prefix,
        jitter_seconds=settings.expiration_jitter_max_seconds,
        calls_at_once=min(each.pool_size for each in (settings.redis, settings.redis_per_second) if each),
        clock=clock or (time.time if is_cluster else None),
    )
    return GuardedStore(
        store,
        memory,
        deadline_seconds=settings.redis_deadline_seconds,
        default=settings.on_redis_failure,
        local_share=settings.local_share,
    )


def cached(settings: RatelimitSettings, store: Store, clock: Callable[[], float]) -> Store:
    """The store behind the cache of used-up windows, if the settings ask for one."""
    return OverLimitCache(store, clock, settings.local_cache_bytes) if settings.local_cache_bytes else store


def _store(settings: RatelimitSettings, memory: MemoryStore) -> tuple[Store, GuardedStore | None]:
    guard = redis_store(settings, memory) if settings.backend is Backend.REDIS else None
    return cached(settings, guard or memory, time.time), guard


def _tracing(settings: RatelimitSettings) -> Tracing | None:
    if settings.tracing is None:
        return None
    try:
        from ratelimit.tracing import Tracing
    except ModuleNotFoundError:
        raise SettingsError("TRACING_ENABLED: needs the extra: pip install 'headgate[otel]'") from None
    return Tracing(settings.tracing)


def _settlement(process: Process, store: Store) -> Settlement:
    def cached_token_weight(name: str) -> float:
        tenant = process.policy.current().tenants.get(name)
        return tenant.limits.cached_token_weight if tenant is not None else 1.0

    settlement = Settlement(store, time.time, cached_token_weight)
    process.records.follow(settlement.ended)
    settled = settlement.settled
    process.metrics.watch(
        "settled_tokens",
        "Tokens that finished requests put right in their tenants' budgets, since the start.",
        ("direction",),
        lambda: [(("given_back",), settled.given_back), (("charged",), settled.charged)],
    )
    return settlement


def _current(process: Process, settings: RatelimitSettings) -> CurrentConfiguration:
    is_expected = bool(settings.directory) or settings.xds is not None
    current = CurrentConfiguration(process.policy.current(), None if is_expected else Configuration())
    process.policy.on_change(current.adopt_policy)
    return current


def _observer(process: Process, statsd: StatsdReporter | None) -> Callable[[float], None]:
    in_prometheus = response_times(process.metrics.registry)
    if statsd is None:
        return in_prometheus

    def observe(seconds: float) -> None:
        in_prometheus(seconds)
        statsd.observe_seconds(seconds)

    return observe


def _recorder(process: Process) -> Callable[[str, str, Code], None]:
    decisions = process.metrics.rate_limit_decisions
    limit_label = process.metrics.limit_label
    counters: dict[tuple[str, str, Code], Callable[[], None]] = {}

    def record(domain: str, metric_key: str, code: Code) -> None:
        count = counters.get((domain, metric_key, code))
        if count is None:
            label = limit_label(metric_key)
            count = decisions.labels(domain, label, code).inc
            if label == metric_key:
                counters[domain, metric_key, code] = count
        count()

    return record


def _readiness(
    settings: RatelimitSettings, current: CurrentConfiguration, guard: GuardedStore | None
) -> Callable[[], bool]:
    def is_ready() -> bool:
        if settings.healthy_with_configuration and not current.has_files:
            return False
        return guard is None or not settings.redis.health_follows or guard.is_answering

    return is_ready


def _watching(settings: RatelimitSettings, current: CurrentConfiguration, stats: Stats) -> list[Part]:
    def loaded(worked: bool) -> None:  # noqa: FBT001  (an event with one fact)
        if worked:
            stats.service.config_load_success += 1
        else:
            stats.service.config_load_error += 1

    if settings.xds is not None:
        return [ControlPlane(settings.xds, current.adopt_files, loaded, merge_domains=settings.merge_domains)]
    if not settings.directory:
        return []
    selection = Selection(
        prefix=settings.files_prefix,
        ignore_dot_files=settings.ignore_dot_files,
        merge_domains=settings.merge_domains,
    )
    return [ConfigurationDirectory(Path(settings.directory), selection, current.adopt_files, loaded)]


def _upkeep(memory: MemoryStore, guard: GuardedStore | None) -> list[Part]:
    async def sweep() -> None:
        memory.forget(at_most=_SWEPT_KEYS)

    parts: list[Part] = [Repeated(sweep, _SWEEP_SECONDS)]
    if guard is not None:
        parts.append(Repeated(guard.probe, _PROBE_SECONDS, guard.close))
    return parts
