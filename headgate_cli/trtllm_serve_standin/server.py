"""uvicorn, dressed for this program: one line when it is ready, open streams ended at once when it stops."""

from __future__ import annotations

import asyncio
import socket

import uvicorn
from starlette.types import ASGIApp

from headgate_cli.trtllm_serve_standin import SERVER_HEADER
from headgate_cli.trtllm_serve_standin.scheduler import Scheduler

_FAREWELL_SECONDS = 1.0


class StandInServer(uvicorn.Server):
    """Serves until told to stop by SIGTERM or SIGINT."""

    def __init__(self, app: ASGIApp, scheduler: Scheduler, *, host: str, port: int, ready_line: str) -> None:
        self._scheduler = scheduler
        self._ready_line = ready_line
        super().__init__(
            uvicorn.Config(
                app,
                host=host,
                port=port,
                log_level="warning",
                access_log=False,
                ws="none",
                server_header=False,
                headers=[("server", SERVER_HEADER)],
            )
        )

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen, then print the ready line with the address actually bound."""
        await super().startup(sockets)
        host, port = self.servers[0].sockets[0].getsockname()[:2]
        print(f"{self._ready_line}, listening on http://{host}:{port}", flush=True)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End every open stream, then close; who does not read its ending is cut off."""
        self._scheduler.stop()
        cut_off = asyncio.get_running_loop().call_later(_FAREWELL_SECONDS, self._cut_off)
        await super().shutdown(sockets)
        cut_off.cancel()

    def _cut_off(self) -> None:
        for connection in list(self.server_state.connections):
            connection.transport.abort()
