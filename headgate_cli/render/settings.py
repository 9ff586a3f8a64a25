"""Where everything is, for one rendered Envoy configuration: addresses and the few times the policy does not name.

Stays free of envoy-data-plane, whose import takes half a second.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass

from headgate.errors import SettingsError


@dataclass(frozen=True, slots=True)
class Address:
    """A TCP `host:port` or, when `path` is set, a unix socket."""

    host: str = ""
    port: int = 0
    path: str = ""

    @classmethod
    def parse(cls, text: str) -> Address:
        """Read `host:port`, `[ipv6]:port` or `unix:/path`.

        Raises:
            SettingsError: the text is none of these.
        """
        if text.startswith("unix:"):
            if not (path := text.removeprefix("unix:")).startswith("/"):
                raise SettingsError(f"{text!r}: a unix socket is written unix:/absolute/path")
            return cls(path=path)
        host, _, port = text.rpartition(":")
        if not host or not port.isascii() or not port.isdigit() or not 0 < int(port) < 65536:
            raise SettingsError(f"{text!r}: an address is written host:port or unix:/path")
        if ":" in host and not (host.startswith("[") and host.endswith("]")):
            raise SettingsError(f"{text!r}: an IPv6 address is written [address]:port")
        return cls(host=host.strip("[]"), port=int(port))

    @property
    def is_literal(self) -> bool:
        """True when connecting needs no name to be looked up."""
        if self.path:
            return True
        try:
            ipaddress.ip_address(self.host)
        except ValueError:
            return False
        return True


@dataclass(frozen=True, slots=True, kw_only=True)
class EnvoySettings:
    """What an Envoy configuration needs and a policy does not say.

    Attributes:
        listen: where clients connect.
        admin: Envoy's admin page; whoever reaches it controls Envoy.
        extproc: the ext_proc service, `host:port` or `unix:/path`.
        ratelimit: the rate limit service, likewise.
        accesslog: the access log service, likewise.
        upload_seconds: how long a client may take to send its request.
        idle_seconds: the longest silence of an admitted request: time to first token, or between two.
        ratelimit_timeout_seconds: how long Envoy waits for the rate limit service.
        accesslog_flush_seconds: how long a finished request may wait to be accounted.
        stream_usage: read token usage from event streams. Envoy 1.39.3 and 1.40.0 crash on an event whose data is a
            bare JSON number, string, boolean or null, which no known model server sends; False is safe from that.
    """

    listen: str = "127.0.0.1:10000"
    admin: str = "127.0.0.1:9901"
    extproc: str = "127.0.0.1:9002"
    ratelimit: str = "127.0.0.1:8081"
    accesslog: str = "127.0.0.1:9002"
    upload_seconds: float = 60.0
    idle_seconds: float = 300.0
    ratelimit_timeout_seconds: float = 0.5
    accesslog_flush_seconds: float = 0.25
    stream_usage: bool = True
