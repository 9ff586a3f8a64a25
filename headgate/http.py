"""A small HTTP server for a process's side doors (metrics, health, JSON), on the process's own event loop."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Iterator

import uvicorn
from starlette.applications import Starlette

STOP_SECONDS = 3
"""How long a stopping server waits for requests that do not end."""


class HttpServer:
    """Serves a Starlette application on `host:port`; port 0 takes any free one."""

    def __init__(self, address: str, application: Starlette) -> None:
        self._host, _, port = address.rpartition(":")
        self._port = int(port)
        self._server = _QuietServer(
            uvicorn.Config(
                application,
                log_config=None,
                log_level="warning",
                access_log=False,
                lifespan="off",
                timeout_keep_alive=30,
                timeout_graceful_shutdown=STOP_SECONDS,
            )
        )
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> str:
        """Listen; return the address actually bound.

        Raises:
            OSError: somebody else listens there, or the address is not of this machine.
        """
        listening = self._listen()
        port = listening.getsockname()[1]
        self._task = asyncio.create_task(self._server.serve(sockets=[listening]))
        await self._server.listening.wait()
        return f"{self._host}:{port}"

    async def stop(self) -> None:
        """Answer what is open and close."""
        self._server.should_exit = True
        if self._task is not None:
            await self._task

    def _listen(self) -> socket.socket:
        listening = socket.socket(socket.AF_INET6 if self._host.startswith("[") else socket.AF_INET)
        try:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listening.bind((self._host.strip("[]"), self._port))
            listening.listen()
        except OSError as error:
            listening.close()
            raise OSError(f"cannot listen on {self._host}:{self._port}: {error.strerror}") from error
        return listening


class _QuietServer(uvicorn.Server):
    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.listening = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Say when the sockets are open."""
        await super().startup(sockets)
        self.listening.set()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Signals belong to the process, not to one of its servers."""
        yield
