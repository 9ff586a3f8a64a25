"""Clients of redis-py from `RedisSettings`: single, sentinel, cluster; TLS and authentication.

Nothing is retried: a charge that may have been applied must not be applied again. Nothing connects before it is
asked. The only module that names redis-py's classes besides `redis_store`.
"""

from __future__ import annotations

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
from redis.asyncio.sentinel import SentinelConnectionPool
from redis.backoff import NoBackoff

from ratelimit.redis_settings import Credentials, RedisSettings, RedisType

Client = Redis | RedisCluster


def connect(settings: RedisSettings) -> Client:
    """A client that connects when it is first asked."""
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
        options |= {"connection_class": SSLConnection if settings.tls else Connection, "host": host, "port": port}
        options |= _tls(settings)
    return ConnectionPool(max_connections=settings.pool_size, **options)


def _sentinel(settings: RedisSettings) -> Redis:
    own = _credentials(settings.sentinel_credentials) | {"socket_connect_timeout": settings.connect_seconds}
    sentinel: Any = Sentinel(  # type: ignore[no-untyped-call]
        settings.addresses, sentinel_kwargs=own | _encryption(settings)
    )
    options = _options(settings) | _encryption(settings) | {"max_connections": settings.pool_size}
    master: Redis = sentinel.master_for(settings.master, **options)
    return master


def _cluster(settings: RedisSettings) -> RedisCluster:
    options = {key: value for key, value in _options(settings).items() if key != "retry"}
    return RedisCluster(
        startup_nodes=[ClusterNode(host, port) for host, port in settings.addresses],
        max_connections=settings.pool_size,
        retry=_no_retry(),
        # A moved slot is learned from the answer; starting over would cut off every other call in flight.
        reinitialize_steps=0,
        **options,
        **_encryption(settings),
    )


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


def _encryption(settings: RedisSettings) -> dict[str, Any]:
    return {"ssl": True} | _tls(settings) if settings.tls else {}


def _tls(settings: RedisSettings) -> dict[str, Any]:
    if not settings.tls:
        return {}
    return {
        "ssl_ca_certs": settings.tls_ca or None,
        "ssl_certfile": settings.tls_certificate or None,
        "ssl_keyfile": settings.tls_key or None,
        "ssl_check_hostname": settings.checks_hostname,
    }
