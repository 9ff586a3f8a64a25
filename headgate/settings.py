"""Where a process listens and what it reads: settings, from the environment or flags, read once at start.

What may be done to whom is not here but in the policy file.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from types import MappingProxyType

from headgate.errors import SettingsError
from headgate.redis.url import read_redis_url
from headgate.transport.tls import Tls

_PREFIX = "HEADGATE_"
_HOST_AND_PORT = re.compile(r"(?:[A-Za-z0-9_.-]+|\[[0-9A-Fa-f:.]+\]):([0-9]{1,5})")
_SOCKET_PATH = re.compile(r"unix:/.+")
_GRPC_ADDRESSES = ("extproc_address", "ratelimit_address")
_NUMBERS = {
    "grace_seconds": (0.0, 3600.0, " seconds"),
    "lease_seconds": (0.0, 3600.0, " seconds"),
    "signal_interval_seconds": (0.05, 3600.0, " seconds"),
    "signal_timeout_seconds": (0.05, 3600.0, " seconds"),
    "signal_stale_seconds": (0.05, 3600.0, " seconds"),
    "request_log_share": (0.0, 1.0, ""),
}
_HTTP_ADDRESSES = ("ratelimit_http_address", "admin_address")


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Every setting has a flag of `headgate serve` and an environment variable `HEADGATE_<NAME>`.

    Attributes:
        policy: the policy file; empty for the one Headgate ships with.
        extproc_address: gRPC ext_proc and access log, `host:port` or `unix:/path`.
        ratelimit_address: gRPC rate limit service, in the same two forms.
        ratelimit_http_address: the rate limit service's `/json` and `/healthcheck`, `host:port`.
        admin_address: `/metrics`, `/healthz`, `/readyz`, `/policy`, `host:port`.
        grace_seconds: how long a stopping process waits for its open calls.
        signal_interval_seconds: how often the model servers are asked how they are.
        signal_timeout_seconds: how long one of them may take to answer.
        signal_stale_seconds: how old an answer may be and still count.
        region: the value of `region` in routing rules.
        affinity_salt: a secret that names sessions and prompts for Envoy's load balancing; the same in all sidecars.
            Empty: one of this process alone.
        transport: what serves gRPC: `lean`, Headgate's own, or `grpcio`, the reference, at many times the cost.
        tls_cert, tls_key: certificate chain and key of the gRPC listeners, PEM files; empty for plain HTTP/2.
        tls_client_ca: PEM file of the authority that has to have signed a client's certificate; empty to ask for none.
        store: where leases live: `memory`, for one sidecar alone, or `redis`, for all that use one Redis or Valkey.
        redis_url: where that is (`headgate.redis.url` lists the forms).
        lease_seconds: how long a lease outlives a sidecar that died; 1 to 3600.
        log_level: DEBUG, INFO, WARNING or ERROR.
        request_log_share: of the requests that went well, how many get a log line: 0 none .. 1 all.
        otlp_endpoint: where spans go, `http://host:port` of an OTLP/HTTP receiver; empty for nowhere.
            `OTEL_EXPORTER_OTLP_ENDPOINT` works too.
    """

    policy: str = ""
    extproc_address: str = "127.0.0.1:9002"
    ratelimit_address: str = "127.0.0.1:8081"
    ratelimit_http_address: str = "127.0.0.1:8080"
    admin_address: str = "127.0.0.1:9090"
    grace_seconds: float = 10.0
    signal_interval_seconds: float = 1.0
    signal_timeout_seconds: float = 1.0
    signal_stale_seconds: float = 5.0
    region: str = ""
    affinity_salt: str = ""
    transport: str = "lean"
    tls_cert: str = ""
    tls_key: str = ""
    tls_client_ca: str = ""
    store: str = "memory"
    redis_url: str = "redis://127.0.0.1:6379"
    lease_seconds: float = 15.0
    log_level: str = "INFO"
    request_log_share: float = 1.0
    otlp_endpoint: str = ""

    @property
    def policy_path(self) -> Path:
        """The policy file to read."""
        return Path(self.policy) if self.policy else DEFAULT_POLICY

    @property
    def tls(self) -> Tls | None:
        """What the gRPC listeners present and demand; None for plain HTTP/2."""
        if not self.tls_cert:
            return None
        authority = Path(self.tls_client_ca) if self.tls_client_ca else None
        return Tls(certificate=Path(self.tls_cert), key=Path(self.tls_key), client_authority=authority)


DEFAULT_POLICY = Path(__file__).parent / "policy" / "default.yaml"


def read_settings(
    flags: Mapping[str, str | float | None] = MappingProxyType({}), environment: Mapping[str, str] = os.environ
) -> Settings:
    """Settings from flags, else from the environment, else the defaults.

    Raises:
        SettingsError: a value cannot be used.
    """
    values: dict[str, str | float] = {}
    for field in fields(Settings):
        flag = flags.get(field.name)
        value = flag if flag is not None else environment.get(_PREFIX + field.name.upper())
        if value is None and field.name == "otlp_endpoint":
            value = environment.get("OTEL_EXPORTER_OTLP_ENDPOINT")
        if value is not None:
            values[field.name] = _number(field.name, value) if field.name in _NUMBERS else str(value)
    settings = Settings(**values)  # type: ignore[arg-type]  # each value has its field's type by now
    if settings.log_level not in ("DEBUG", "INFO", "WARNING", "ERROR"):
        raise SettingsError(f"log_level: has to be DEBUG, INFO, WARNING or ERROR, not '{settings.log_level}'")
    if settings.transport not in ("lean", "grpcio"):
        raise SettingsError(f"transport: has to be lean or grpcio, not '{settings.transport}'")
    _check_tls(settings)
    _check_store(settings)
    for name in (*_GRPC_ADDRESSES, *_HTTP_ADDRESSES):
        _check_address(name, getattr(settings, name))
    return settings


def _check_tls(settings: Settings) -> None:
    if bool(settings.tls_cert) != bool(settings.tls_key):
        missing, given = ("tls_key", "tls_cert") if settings.tls_cert else ("tls_cert", "tls_key")
        raise SettingsError(f"{missing}: has to be set with {given}")
    if settings.tls_client_ca and not settings.tls_cert:
        raise SettingsError("tls_cert: has to be set with tls_client_ca")


def _check_store(settings: Settings) -> None:
    if settings.store not in ("memory", "redis"):
        raise SettingsError(f"store: has to be memory or redis, not '{settings.store}'")
    if settings.store == "redis":
        read_redis_url(settings.redis_url)
    if settings.lease_seconds < 1.0:
        raise SettingsError(f"lease_seconds: has to be at least 1 second, not '{settings.lease_seconds}'")


def _check_address(name: str, address: str) -> None:
    takes_path = name in _GRPC_ADDRESSES
    if takes_path and _SOCKET_PATH.fullmatch(address):
        return
    match = _HOST_AND_PORT.fullmatch(address)
    if match is None or int(match[1]) > 65535:
        form = "host:port or unix:/path" if takes_path else "host:port"
        raise SettingsError(f"{name}: has to be {form}, not '{address}'")


def _number(name: str, value: str | float) -> float:
    least, most, unit = _NUMBERS[name]
    try:
        number = float(value)
    except ValueError:
        raise SettingsError(f"{name}: has to be a number{unit and ' of'}{unit}, not '{value}'") from None
    if not least <= number <= most:
        raise SettingsError(f"{name}: has to be between {least:g} and {most:g}{unit}, not '{value}'")
    return number
