"""The service's settings under the reference's environment names, read once at start.

Also knows which of the reference's settings have no counterpart here, and says so instead of ignoring them.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from headgate.errors import SettingsError
from headgate.policy.model import OnStoreFailure
from headgate.redis.settings import RedisSettings
from ratelimit.environment import Environment
from ratelimit.redis_settings import read_redis_settings
from ratelimit.reference_logs import LogSettings, read_log_settings
from ratelimit.serving_settings import ServingSettings, read_serving_settings
from ratelimit.statsd_settings import StatsdSettings, read_statsd_settings
from ratelimit.tracing_settings import TracingSettings, read_tracing_settings
from ratelimit.xds_settings import XdsSettings, read_xds_settings


class Backend(StrEnum):
    """Where counts are kept."""

    MEMORY = "memory"
    REDIS = "redis"


@dataclass(frozen=True, slots=True, kw_only=True)
class RatelimitSettings:
    """What the reference calls by the names in `docs/ratelimit.md`.

    Attributes:
        directory: where the configuration files are; empty for none.
        files_prefix: only files whose dotted path below `directory` starts with this count.
        response_headers: the names of the three `RateLimit-*` headers.
        on_redis_failure: what holds for limits without a policy of their own; None fails the call, so that Envoy's
            `failure_mode_deny` decides, as with the reference.
        redis_deadline_seconds: how long a call waits for Redis. Envoy gives the whole call 20 ms by default.
        local_share: the part of a limit this process grants by itself while the policy is `local`.
        statsd, tracing: None for neither.
        xds: where configuration comes from in the place of files; None for files.
    """

    serving: ServingSettings = field(default_factory=ServingSettings)
    directory: str = ""
    files_prefix: str = ""
    ignore_dot_files: bool = True
    merge_domains: bool = False
    backend: Backend = Backend.MEMORY
    shadow_mode: bool = False
    quota_mode: bool = False
    response_dynamic_metadata: bool = False
    response_headers_enabled: bool = False
    response_headers: tuple[str, str, str] = ("RateLimit-Limit", "RateLimit-Remaining", "RateLimit-Reset")
    near_limit_ratio: float = 0.8
    cache_key_prefix: str = ""
    expiration_jitter_max_seconds: int = 300
    local_cache_bytes: int = 0
    stop_increment_when_over_limit: bool = False
    healthy_with_configuration: bool = False
    redis: RedisSettings = field(default_factory=RedisSettings)
    redis_per_second: RedisSettings | None = None
    on_redis_failure: OnStoreFailure | None = None
    redis_deadline_seconds: float = 0.012
    local_share: float = 1.0
    statsd: StatsdSettings | None = None
    logs: LogSettings = field(default_factory=LogSettings)
    tracing: TracingSettings | None = None
    xds: XdsSettings | None = None


def read_ratelimit_settings(variables: Mapping[str, str] = os.environ) -> RatelimitSettings:
    """Settings from the environment, else the defaults.

    Raises:
        SettingsError: a value cannot be used, or asks for something this service does not have.
    """
    environment = Environment(variables)
    _refuse_unsupported(environment)
    defaults = RatelimitSettings()
    watches_root = environment.flag("RUNTIME_WATCH_ROOT", default=True)
    directory, prefix = _files(environment, watches_root=watches_root)
    return RatelimitSettings(
        serving=read_serving_settings(environment),
        directory=directory,
        files_prefix=prefix,
        ignore_dot_files=environment.flag("RUNTIME_IGNOREDOTFILES", default=True),
        merge_domains=environment.flag("MERGE_DOMAIN_CONFIG"),
        backend=_backend(environment),
        shadow_mode=environment.flag("SHADOW_MODE"),
        quota_mode=environment.flag("QUOTA_MODE"),
        response_dynamic_metadata=environment.flag("RESPONSE_DYNAMIC_METADATA"),
        response_headers_enabled=environment.flag("LIMIT_RESPONSE_HEADERS_ENABLED"),
        response_headers=_header_names(environment, defaults.response_headers),
        near_limit_ratio=environment.ratio("NEAR_LIMIT_RATIO", defaults.near_limit_ratio),
        cache_key_prefix=environment.text("CACHE_KEY_PREFIX"),
        expiration_jitter_max_seconds=environment.count(
            "EXPIRATION_JITTER_MAX_SECONDS", defaults.expiration_jitter_max_seconds
        ),
        local_cache_bytes=environment.count("LOCAL_CACHE_SIZE_IN_BYTES", 0),
        stop_increment_when_over_limit=environment.flag("STOP_CACHE_KEY_INCREMENT_WHEN_OVERLIMIT"),
        healthy_with_configuration=environment.flag("HEALTHY_WITH_AT_LEAST_ONE_CONFIG_LOADED"),
        redis=read_redis_settings(environment, "REDIS_"),
        redis_per_second=(
            read_redis_settings(environment, "REDIS_PERSECOND_") if environment.flag("REDIS_PERSECOND") else None
        ),
        on_redis_failure=_on_failure(environment),
        redis_deadline_seconds=environment.seconds(
            "HEADGATE_RATELIMIT_REDIS_DEADLINE", defaults.redis_deadline_seconds
        ),
        local_share=environment.ratio("HEADGATE_RATELIMIT_LOCAL_SHARE", defaults.local_share),
        statsd=read_statsd_settings(environment),
        logs=read_log_settings(environment),
        tracing=read_tracing_settings(environment),
        xds=read_xds_settings(environment),
    )


def _header_names(environment: Environment, defaults: tuple[str, str, str]) -> tuple[str, str, str]:
    limit, remaining, reset = defaults
    return (
        environment.text("LIMIT_LIMIT_HEADER", limit),
        environment.text("LIMIT_REMAINING_HEADER", remaining),
        environment.text("LIMIT_RESET_HEADER", reset),
    )


def _files(environment: Environment, *, watches_root: bool) -> tuple[str, str]:
    """The directory and the prefix of its files, in the reference's two layouts."""
    if not environment.has("RUNTIME_ROOT", "RUNTIME_SUBDIRECTORY"):
        return "", ""
    parts = [environment.text("RUNTIME_ROOT", "/srv/runtime_data/current"), environment.text("RUNTIME_SUBDIRECTORY")]
    application = environment.text("RUNTIME_APPDIRECTORY", "config")
    if watches_root:
        return os.path.join(*filter(None, parts)), f"{application}."
    return os.path.join(*filter(None, [*parts, application])), ""


def _backend(environment: Environment) -> Backend:
    default = Backend.REDIS if environment.has("REDIS_URL", "REDIS_TYPE") else Backend.MEMORY
    name = environment.text("BACKEND_TYPE", default).lower()
    if name == "memcache":
        raise SettingsError("BACKEND_TYPE: memcached is not supported; use redis or memory")
    if name not in tuple(Backend):
        raise SettingsError(f"BACKEND_TYPE: has to be memory or redis, not '{name}'")
    return Backend(name)


def _on_failure(environment: Environment) -> OnStoreFailure | None:
    name = "HEADGATE_RATELIMIT_ON_REDIS_FAILURE"
    text = environment.text(name, "error")
    if text == "error":
        return None
    if text not in tuple(OnStoreFailure):
        raise SettingsError(f"{name}: has to be error, open, closed or local, not '{text}'")
    return OnStoreFailure(text)


def _refuse_unsupported(environment: Environment) -> None:
    if environment.has("PROMETHEUS_MAPPER_YAML"):
        raise SettingsError("PROMETHEUS_MAPPER_YAML: not supported; metrics have the names of the default mapper")
