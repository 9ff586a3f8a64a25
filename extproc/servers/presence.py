"""Whether anybody is at an address at all, which a question without an answer leaves open. Sends nothing there."""

from __future__ import annotations

import asyncio
import errno
import socket
from typing import Any

from extproc.servers.page import NobodyThere, NoReading
from extproc.servers.reading import Reading
from extproc.servers.watch import Ask

_NOBODY = (errno.ECONNREFUSED, errno.EHOSTUNREACH, errno.ENETUNREACH, socket.EAI_NONAME)
"""What says so for certain. All else that may go wrong is slowness, or trouble of our own."""


def or_nobody(address: str, ask: Ask) -> Ask:
    """The same question; without an answer it is NobodyThere where nobody is at `host:port`."""

    async def asked() -> Reading:
        try:
            return await ask()
        except NoReading as error:
            if await is_nobody_at(address):
                raise NobodyThere(str(error)) from error
            raise

    return asked


async def is_nobody_at(address: str) -> bool:
    """Whether all that `host:port` stands for refuses connections or cannot be reached; the caller bounds the time."""
    host, _, port = address.rpartition(":")
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError as error:
        return error.errno in _NOBODY
    problems = [await _problem(family, to) for family, _, _, _, to in found]
    # A machine without IPv6 has other words for ::1, and they say nothing.
    return None not in problems and any(problem in _NOBODY for problem in problems)


async def _problem(family: int, to: Any) -> int | None:
    try:
        with socket.socket(family, socket.SOCK_STREAM) as knock:
            knock.setblocking(False)
            await asyncio.get_running_loop().sock_connect(knock, to)
    except OSError as error:
        return error.errno
    return None
