"""A model server's metrics page that says whatever it is told to, true or not, or nothing at all."""

from __future__ import annotations

import asyncio


class Gossip:
    """One page.

    Attributes:
        waiting: how many requests wait in the server's queue; None: questions get no answer.
    """

    def __init__(self) -> None:
        self.waiting: int | None = 0
        self.port = 0

    async def start(self) -> asyncio.Server:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        return server

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while await reader.readuntil(b"\r\n\r\n"):
                if self.waiting is not None:
                    page = f"vllm:num_requests_waiting {self.waiting}\n".encode()
                    writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%s" % (len(page), page))
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # the sidecar gave up waiting, or the test is over
        finally:
            writer.close()
