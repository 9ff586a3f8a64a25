"""Where Redis is and how to get in; `connection` does it. Reads no environment."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

DEFAULT_PORT = 6379


class RedisType(StrEnum):
    """What stands behind the address."""

    SINGLE = "SINGLE"
    SENTINEL = "SENTINEL"
    CLUSTER = "CLUSTER"


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    """`password` or `user:password`; both empty for none."""

    username: str = ""
    password: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class RedisSettings:
    """One Redis, or one set of them.

    Attributes:
        addresses: `(host, port)`; of a sentinel setup, the sentinels.
        socket_path: a unix socket in place of an address.
        master: of a sentinel setup, the master's name.
        connect_seconds: bounds connecting; a command has its own deadline.
        checks_hostname: whether the server's certificate has to be for its name.
        health_follows: whether the service is healthy only while Redis answers.
    """

    type: RedisType = RedisType.SINGLE
    addresses: tuple[tuple[str, int], ...] = (("localhost", DEFAULT_PORT),)
    socket_path: str = ""
    database: int = 0
    master: str = ""
    pool_size: int = 10
    credentials: Credentials = field(default_factory=Credentials)
    sentinel_credentials: Credentials = field(default_factory=Credentials)
    tls: bool = False
    tls_ca: str = ""
    tls_certificate: str = ""
    tls_key: str = ""
    checks_hostname: bool = True
    connect_seconds: float = 10.0
    health_follows: bool = False
