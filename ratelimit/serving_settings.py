"""Where this service listens and how its connections are kept, in the reference's settings."""

from __future__ import annotations

from dataclasses import dataclass

from headgate.errors import SettingsError
from ratelimit.environment import Environment

_ALL_ADDRESSES = "0.0.0.0"  # noqa: S104  (the reference's meaning of an address without a host)


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsFiles:
    """What the gRPC port presents and demands.

    Attributes:
        client_authority: the CA that has to have signed a client's certificate; empty for no client certificate.
    """

    certificate: str
    key: str
    client_authority: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServingSettings:
    """Addresses and connections.

    Attributes:
        prometheus_address: in the place of the admin address; empty for that one.
        max_connection_age_seconds: after this a gRPC connection is asked to end; 0 for never.
        max_connection_age_grace_seconds: after this much more it is cut.
    """

    host: str = "127.0.0.1"
    port: int = 8080
    grpc_host: str = "127.0.0.1"
    grpc_port: int = 8081
    grpc_uds: str = ""
    debug_host: str = "127.0.0.1"
    debug_port: int = 6070
    prometheus_address: str = ""
    prometheus_path: str = "/metrics"
    tls: TlsFiles | None = None
    max_connection_age_seconds: float = 24 * 3600.0
    max_connection_age_grace_seconds: float = 3600.0

    @property
    def grpc_address(self) -> str:
        """`host:port`, or `unix:/path`."""
        return f"unix:{self.grpc_uds}" if self.grpc_uds else f"{self.grpc_host}:{self.grpc_port}"

    @property
    def http_address(self) -> str:
        """Of `/json` and `/healthcheck`."""
        return f"{self.host}:{self.port}"

    @property
    def debug_address(self) -> str:
        """Of `/rlconfig`, `/stats` and `/explain`."""
        return f"{self.debug_host}:{self.debug_port}"


def read_serving_settings(environment: Environment) -> ServingSettings:
    """HOST, PORT and the like.

    Raises:
        SettingsError: a value cannot be used.
    """
    defaults = ServingSettings()
    return ServingSettings(
        host=environment.text("HOST", defaults.host),
        port=environment.count("PORT", defaults.port),
        grpc_host=environment.text("GRPC_HOST", defaults.grpc_host),
        grpc_port=environment.count("GRPC_PORT", defaults.grpc_port),
        grpc_uds=environment.text("GRPC_UDS"),
        debug_host=environment.text("DEBUG_HOST", defaults.debug_host),
        debug_port=environment.count("DEBUG_PORT", defaults.debug_port),
        prometheus_address=_prometheus_address(environment),
        prometheus_path=_prometheus_path(environment, defaults.prometheus_path),
        tls=_tls(environment),
        max_connection_age_seconds=environment.seconds("GRPC_MAX_CONNECTION_AGE", defaults.max_connection_age_seconds),
        max_connection_age_grace_seconds=environment.seconds(
            "GRPC_MAX_CONNECTION_AGE_GRACE", defaults.max_connection_age_grace_seconds
        ),
    )


def _prometheus_address(environment: Environment) -> str:
    text = environment.text("PROMETHEUS_ADDR")
    if not text:
        return ""
    host, separator, port = text.rpartition(":")
    if not separator or not port.isdigit():
        raise SettingsError(f"PROMETHEUS_ADDR: has to be host:port or :port, not '{text}'")
    return f"{host or _ALL_ADDRESSES}:{port}"


def _prometheus_path(environment: Environment, default: str) -> str:
    path = environment.text("PROMETHEUS_PATH", default)
    if not path.startswith("/"):
        raise SettingsError(f"PROMETHEUS_PATH: has to begin with a slash, not '{path}'")
    return path


def _tls(environment: Environment) -> TlsFiles | None:
    if not environment.flag("GRPC_SERVER_USE_TLS"):
        return None
    files = {name: environment.text(name) for name in ("GRPC_SERVER_TLS_CERT", "GRPC_SERVER_TLS_KEY")}
    for name, path in files.items():
        if not path:
            raise SettingsError(f"{name}: is needed with GRPC_SERVER_USE_TLS")
    if environment.has("GRPC_CLIENT_TLS_SAN"):
        raise SettingsError("GRPC_CLIENT_TLS_SAN: not supported; let GRPC_CLIENT_TLS_CACERT sign for this client only")
    certificate, key = files.values()
    return TlsFiles(certificate=certificate, key=key, client_authority=environment.text("GRPC_CLIENT_TLS_CACERT"))
