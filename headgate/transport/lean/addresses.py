"""Addresses a server listens on: `host:port` or `unix:/path`."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
from collections.abc import Callable
from pathlib import Path
from stat import S_ISSOCK

_UNIX = "unix:"
_BACKLOG = 1024
_HANDSHAKE_SECONDS = 10.0


async def listen(
    address: str, new_protocol: Callable[[], asyncio.Protocol], tls: ssl.SSLContext | None
) -> tuple[asyncio.Server, str]:
    """Accept connections; returns the server and the address actually bound.

    Raises:
        OSError: the address cannot be listened on.
    """
    try:
        server = await _listen(address, new_protocol, tls)
    except ValueError:
        raise OSError(f"cannot listen on {address}: not host:port") from None
    except OSError as error:
        raise OSError(f"cannot listen on {address}: {_reason(error)}") from error
    if address.startswith(_UNIX):
        return server, address
    return server, f"{address.rpartition(':')[0]}:{server.sockets[0].getsockname()[1]}"


async def _listen(
    address: str, new_protocol: Callable[[], asyncio.Protocol], tls: ssl.SSLContext | None
) -> asyncio.Server:
    loop = asyncio.get_running_loop()
    handshake_seconds = None if tls is None else _HANDSHAKE_SECONDS
    if address.startswith(_UNIX):
        path = address.removeprefix(_UNIX)
        _remove_dead_socket(Path(path))
        return await loop.create_unix_server(
            new_protocol, path, backlog=_BACKLOG, ssl=tls, ssl_handshake_timeout=handshake_seconds
        )
    host, _, port = address.rpartition(":")
    return await loop.create_server(
        new_protocol,
        host.strip("[]"),
        int(port),
        backlog=_BACKLOG,
        ssl=tls,
        ssl_handshake_timeout=handshake_seconds,
    )


def _reason(error: OSError) -> str:
    """In the system's words; asyncio has many more."""
    if error.errno is None or error.errno < 0:
        return str(error)
    return os.strerror(error.errno)


def _remove_dead_socket(path: Path) -> None:
    """What a process that was killed left behind keeps nobody from listening; a live one does."""
    try:
        is_socket = S_ISSOCK(os.stat(path).st_mode)
    except FileNotFoundError:
        return
    if not is_socket:
        raise OSError("there is a file")
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink()
            return
    raise OSError("it is in use")
