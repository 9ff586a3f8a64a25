"""The control plane that configuration may come from, in the reference's settings; `discovery` asks it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from headgate.errors import SettingsError
from ratelimit.environment import Environment


@dataclass(frozen=True, slots=True, kw_only=True)
class XdsTls:
    """How the control plane is reached over TLS; empty names for none.

    Attributes:
        server_name: what its certificate has to be for, in the place of the host of its address.
    """

    authority: str = ""
    certificate: str = ""
    key: str = ""
    server_name: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class XdsSettings:
    """One control plane, asked over its aggregated discovery service (state of the world).

    Attributes:
        headers: sent with the call.
        retry_seconds: the first pause after a stream has failed; each further one is twice as long.
        longest_retry_seconds: and no longer than this.
        max_message_bytes: of a response; None for gRPC's own bound.
    """

    address: str = "localhost:18000"
    node_id: str = "default"
    node_metadata: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    headers: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    tls: XdsTls | None = None
    retry_seconds: float = 10.0
    longest_retry_seconds: float = 60.0
    jitter: float = 0.5
    max_message_bytes: int | None = None


def read_xds_settings(environment: Environment) -> XdsSettings | None:
    """None when configuration comes from files.

    Raises:
        SettingsError: a value cannot be used.
    """
    source = environment.text("CONFIG_TYPE", "FILE").upper()
    if source == "FILE":
        return None
    if source != "GRPC_XDS_SOTW":
        raise SettingsError(f"CONFIG_TYPE: has to be FILE or GRPC_XDS_SOTW, not '{source}'")
    defaults = XdsSettings()
    jitter = environment.ratio("XDS_CLIENT_BACKOFF_RANDOM_FACTOR", defaults.jitter)
    return XdsSettings(
        address=environment.text("CONFIG_GRPC_XDS_SERVER_URL", defaults.address),
        node_id=environment.text("CONFIG_GRPC_XDS_NODE_ID", defaults.node_id),
        node_metadata=environment.pairs("CONFIG_GRPC_XDS_NODE_METADATA", separators="=:"),
        headers=environment.pairs("CONFIG_GRPC_XDS_CLIENT_ADDITIONAL_HEADERS"),
        tls=_tls(environment),
        retry_seconds=environment.seconds("XDS_CLIENT_BACKOFF_INITIAL_INTERVAL", defaults.retry_seconds),
        longest_retry_seconds=environment.seconds("XDS_CLIENT_BACKOFF_MAX_INTERVAL", defaults.longest_retry_seconds),
        jitter=jitter if environment.flag("XDS_CLIENT_BACKOFF_JITTER", default=True) else 0.0,
        max_message_bytes=environment.count("XDS_CLIENT_MAX_MSG_SIZE_IN_BYTES", 0) or None,
    )


def _tls(environment: Environment) -> XdsTls | None:
    if not environment.flag("CONFIG_GRPC_XDS_SERVER_USE_TLS"):
        return None
    return XdsTls(
        authority=environment.text("CONFIG_GRPC_XDS_SERVER_TLS_CACERT"),
        certificate=environment.text("CONFIG_GRPC_XDS_CLIENT_TLS_CERT"),
        key=environment.text("CONFIG_GRPC_XDS_CLIENT_TLS_KEY"),
        server_name=environment.text("CONFIG_GRPC_XDS_SERVER_TLS_SAN"),
    )
