"""Clients of redis-py from `RedisSettings`: single, sentinel, cluster; TLS and authentication.

Nothing is retried: a charge that may have been applied must not be applied again. Nothing connects before it is
asked.
"""

from __future__ import annotations

import ssl
from typing import Any

from redis.asyncio import (
    ConnectionPool,
    Redis,
    RedisCluster,
    Sentinel,
    SSLConnection,
    UnixDomainSocketConnection,
)
from redis.asyncio.cluster import ClusterNode
from redis.asyncio.connection import Connection
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import SentinelConnectionPool, SentinelManagedConnection
from redis.backoff import NoBackoff

from headgate.errors import SettingsError
from headgate.redis.settings import Credentials, RedisSettings, RedisType

Client = Redis | RedisCluster


class _Encrypted(SSLConnection):
    # By itself each connection reads all the CAs anew, which alone takes longer than a call may.
    def __init__(self, *, context: ssl.SSLContext, **options: Any) -> None:
        super().__init__(**options)
        self.ssl_context.context = context


class _EncryptedMaster(SentinelManagedConnection, _Encrypted):
    pass


def connect(settings: RedisSettings) -> Client:
    """A client that connects when it is first asked.

    Raises:
        SettingsError: a TLS file cannot be used.
    """
    match settings.type:
        case RedisType.SINGLE:
            return Redis.from_pool(_pool(settings))
        case RedisType.SENTINEL:
            return _sentinel(settings)
        case RedisType.CLUSTER:
            return _cluster(settings)


async def disconnect(client: Client) -> None:
    """Close every connection, also those to the sentinels."""
    await client.aclose()
    pool = client.connection_pool if isinstance(client, Redis) else None
    if isinstance(pool, SentinelConnectionPool):
        for sentinel in pool.sentinel_manager.sentinels:
            await sentinel.aclose()


def _pool(settings: RedisSettings) -> ConnectionPool:
    options = _options(settings) | {"db": settings.database}
    if settings.socket_path:
        options |= {"connection_class": UnixDomainSocketConnection, "path": settings.socket_path}
    else:
        host, port = settings.addresses[0]
        options |= {"connection_class": Connection, "host": host, "port": port}
        if settings.tls:
            options |= {"connection_class": _Encrypted, "context": _context(settings)}
    return ConnectionPool(max_connections=settings.pool_size, **options)


def _sentinel(settings: RedisSettings) -> Redis:
    own = _credentials(settings.sentinel_credentials) | {"socket_connect_timeout": settings.connect_seconds}
    sentinel: Any = Sentinel(settings.addresses, sentinel_kwargs=own)  # type: ignore[no-untyped-call]
    options = _options(settings) | {"max_connections": settings.pool_size}
    if settings.tls:
        context = _context(settings)
        options |= {"connection_class": _EncryptedMaster, "context": context}
        for each in sentinel.sentinels:
            _encrypt(each.connection_pool, context)
    master: Redis = sentinel.master_for(settings.master, **options)
    return master


def _cluster(settings: RedisSettings) -> RedisCluster:
    options = {key: value for key, value in _options(settings).items() if key != "retry"}
    cluster = RedisCluster(
        startup_nodes=[ClusterNode(host, port) for host, port in settings.addresses],
        max_connections=settings.pool_size,
        retry=_no_retry(),
        # A moved slot is learned from the answer; starting over would cut off every other call in flight.
        reinitialize_steps=0,
        **options,
    )
    if settings.tls:
        context = _context(settings)
        cluster.nodes_manager.connection_kwargs |= {"connection_class": _Encrypted, "context": context}
        for node in cluster.nodes_manager.startup_nodes.values():
            _encrypt(node, context)
    return cluster


def _options(settings: RedisSettings) -> dict[str, Any]:
    # A command's time is bounded by whoever waits for it.
    options: dict[str, Any] = {
        "socket_connect_timeout": settings.connect_seconds,
        "socket_timeout": None,
        "retry": _no_retry(),
    }
    return options | _credentials(settings.credentials)


def _no_retry() -> Retry:
    return Retry(NoBackoff(), 0)


def _credentials(credentials: Credentials) -> dict[str, str | None]:
    return {"username": credentials.username or None, "password": credentials.password or None}


def _encrypt(connecting: Any, context: ssl.SSLContext) -> None:
    # Neither the sentinels' clients nor a cluster's nodes can be given a class of connection when they are made.
    connecting.connection_class = _Encrypted
    connecting.connection_kwargs["context"] = context


def _context(settings: RedisSettings) -> ssl.SSLContext:
    """Trusts the system's CAs and the given one, as the reference does."""
    context = ssl.create_default_context()
    context.check_hostname = settings.checks_hostname
    try:
        if settings.tls_ca:
            context.load_verify_locations(settings.tls_ca)
        if settings.tls_certificate:
            context.load_cert_chain(settings.tls_certificate, settings.tls_key or None)
    except OSError as error:
        raise SettingsError(f"REDIS_TLS_CACERT, REDIS_TLS_CLIENT_CERT or REDIS_TLS_CLIENT_KEY: {error}") from error
    return context
