"""A small HTTP server for a process's side doors (metrics, health, JSON), on the process's own event loop."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Iterator

import uvicorn
from starlette.applications import Starlette


class HttpServer:
    """Serves a Starlette application on `host:port`; port 0 takes any free one."""

    def __init__(self, address: str, application: Starlette) -> None:
        host, _, port = address.rpartition(":")
        self._socket = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._where = (host.strip("[]"), int(port))
        config = uvicorn.Config(application, log_config=None, access_log=False, lifespan="off", timeout_keep_alive=30)
        self._server = _QuietServer(config)
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> str:
        """Listen; return the address actually bound."""
        try:
            self._socket.bind(self._where)
        except OSError as error:
            raise OSError(f"cannot listen on {self._where[0]}:{self._where[1]}: {error.strerror}") from error
        self._task = asyncio.create_task(self._server.serve(sockets=[self._socket]))
        await self._server.listening.wait()
        return f"{self._where[0]}:{self._socket.getsockname()[1]}"

    async def stop(self) -> None:
        """Answer what is open and close."""
        self._server.should_exit = True
        if self._task is not None:
            await self._task
        self._socket.close()


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
