"""One URL -> where Redis is: `redis://`, `rediss://`, `unix://`, and with `+sentinel` or `+cluster` a set of hosts."""

from __future__ import annotations

from urllib.parse import unquote, urlsplit

from headgate.errors import SettingsError
from headgate.redis.settings import DEFAULT_PORT, Credentials, RedisSettings, RedisType

_SENTINEL_PORT = 26379


def read_redis_url(url: str) -> RedisSettings:
    """Settings from `redis://[[USER]:PASSWORD@]HOST[:PORT][/DB]` (`rediss` for TLS), `unix://[...@]/PATH`,
    `redis+sentinel://...@HOST[:PORT],.../MASTER[/DB]` or `redis+cluster://...@HOST[:PORT],...`.

    Raises:
        SettingsError: it is none of these.
    """
    parts = urlsplit(url)
    scheme, _, kind = parts.scheme.partition("+")
    user, _, hosts = parts.netloc.rpartition("@")
    credentials = _credentials(user)
    if parts.scheme == "unix" and parts.path.strip("/") and not hosts:
        return RedisSettings(addresses=(), socket_path=parts.path, credentials=credentials)
    if scheme not in ("redis", "rediss") or kind not in ("", "sentinel", "cluster") or not hosts:
        raise SettingsError(f"redis_url: has to be redis://HOST:PORT or a like form, not '{_bare(url)}'")
    path = [part for part in parts.path.split("/") if part]
    master = path.pop(0) if kind == "sentinel" and path else ""
    if kind == "sentinel" and not master:
        raise SettingsError(f"redis_url: the master's name has to follow the sentinels: '{_bare(url)}'")
    if len(path) > 1 or not all(part.isdigit() for part in path) or (path and kind == "cluster"):
        raise SettingsError(f"redis_url: '/{'/'.join(path)}' is no database number")
    port = _SENTINEL_PORT if kind == "sentinel" else DEFAULT_PORT
    return RedisSettings(
        type=RedisType(kind.upper()) if kind else RedisType.SINGLE,
        addresses=tuple(_address(host, port) for host in hosts.split(",")),
        database=int(path[0]) if path else 0,
        master=unquote(master),
        credentials=credentials,
        tls=scheme == "rediss",
        connect_seconds=1.0,
    )


def _credentials(text: str) -> Credentials:
    user, _, password = text.partition(":")
    return Credentials(username=unquote(user), password=unquote(password))


def _address(text: str, default_port: int) -> tuple[str, int]:
    host, separator, port = text.rpartition(":")
    if not separator or text.endswith("]"):
        return text.strip("[]"), default_port
    if not host or not port.isdigit() or int(port) > 65535:
        raise SettingsError(f"redis_url: '{text}' is no HOST:PORT")
    return host.strip("[]"), int(port)


def _bare(url: str) -> str:
    """The URL without its password."""
    head, separator, tail = url.rpartition("@")
    return f"{head.partition('://')[0]}://...@{tail}" if separator else url
