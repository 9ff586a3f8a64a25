"""Where Redis is and how to get in, in the reference's settings."""

from __future__ import annotations

from urllib.parse import unquote, urlsplit

from headgate.errors import SettingsError
from headgate.redis.settings import DEFAULT_PORT, Credentials, RedisSettings, RedisType
from ratelimit.environment import Environment

_DEFAULT_URL = "localhost:6379"


def read_redis_settings(environment: Environment, prefix: str) -> RedisSettings:
    """The settings under `REDIS_` or `REDIS_PERSECOND_`; TLS files and the health check are shared by both.

    Raises:
        SettingsError: a value cannot be used.
    """
    kind = _type(environment, prefix)
    url = environment.text(f"{prefix}URL", _DEFAULT_URL)
    credentials, url, tls, database = _from_url(url, kind)
    master, _, rest = url.partition(",") if kind is RedisType.SENTINEL else ("", "", url)
    is_socket = kind is RedisType.SINGLE and rest.startswith("/")
    own = environment.text(f"{prefix}AUTH")
    return RedisSettings(
        type=kind,
        addresses=() if is_socket else tuple(_address(part, f"{prefix}URL") for part in rest.split(",") if part),
        socket_path=rest if is_socket else "",
        database=database,
        master=master,
        pool_size=max(1, environment.count(f"{prefix}POOL_SIZE", 10)),
        credentials=_credentials(own) if own else credentials,
        sentinel_credentials=_credentials(environment.text(f"{prefix}SENTINEL_AUTH")),
        tls=tls or environment.flag(f"{prefix}TLS"),
        tls_ca=environment.text("REDIS_TLS_CACERT"),
        tls_certificate=environment.text("REDIS_TLS_CLIENT_CERT"),
        tls_key=environment.text("REDIS_TLS_CLIENT_KEY"),
        checks_hostname=not environment.flag("REDIS_TLS_SKIP_HOSTNAME_VERIFICATION"),
        connect_seconds=environment.seconds(f"{prefix}TIMEOUT", 10.0),
        health_follows=environment.flag("REDIS_HEALTH_CHECK_ACTIVE_CONNECTION"),
    )


def _type(environment: Environment, prefix: str) -> RedisType:
    name = environment.text(f"{prefix}TYPE", RedisType.SINGLE).upper()
    if name not in tuple(RedisType):
        raise SettingsError(f"{prefix}TYPE: has to be SINGLE, SENTINEL or CLUSTER, not '{name}'")
    return RedisType(name)


def _from_url(url: str, kind: RedisType) -> tuple[Credentials, str, bool, int]:
    """Credentials, plain address, TLS and database of a `redis://` or `rediss://` URL; of anything else, itself."""
    if kind is not RedisType.SINGLE or "://" not in url:
        return Credentials(), url, False, 0
    parts = urlsplit(url)
    if parts.scheme not in ("redis", "rediss"):
        raise SettingsError(f"REDIS_URL: unknown scheme '{parts.scheme}'")
    credentials = Credentials(username=unquote(parts.username or ""), password=unquote(parts.password or ""))
    database = parts.path.strip("/")
    if database and not database.isdigit():
        raise SettingsError(f"REDIS_URL: '{database}' is no database number")
    return credentials, parts.netloc.rpartition("@")[2], parts.scheme == "rediss", int(database or 0)


def _address(text: str, name: str) -> tuple[str, int]:
    host, separator, port = text.strip().rpartition(":")
    if not separator:
        return text.strip(), DEFAULT_PORT
    if not port.isdigit():
        raise SettingsError(f"{name}: '{text}' is no host:port")
    return host.strip("[]"), int(port)


def _credentials(text: str) -> Credentials:
    user, separator, password = text.partition(":")
    return Credentials(username=user, password=password) if separator else Credentials(password=text)
