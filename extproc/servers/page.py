"""A server's page of metrics over HTTP: finds where it is, reads it with bounds on time and size."""

from __future__ import annotations

from collections.abc import Collection

import httpx

from extproc.servers.exposition import read_page
from extproc.servers.iterations import read_iterations
from extproc.servers.reading import Reading
from headgate.errors import HeadgateError
from headgate.policy.model import MetricsAddress

_PATHS = ("/prometheus/metrics", "/metrics")
"""The first is trtllm-serve's, whose `/metrics` is emptied by reading it."""
_MAX_PAGE_BYTES = 8 * 1024 * 1024


class NoReading(HeadgateError):  # noqa: N818  (says what happened)
    """Raised when a server answered, but not with anything that tells how it is."""


class NobodyThere(NoReading):
    """Raised when there is no server that could have answered."""


class MetricsPage:
    """One server's page. `client` is shared by all of them; the caller bounds the time."""

    def __init__(self, place: MetricsAddress, client: httpx.AsyncClient) -> None:
        self._url = f"http://{place.address}"
        self._paths = (place.path,) if place.path else _PATHS
        self._found: str | None = None
        self._client = client

    async def read(self, models: Collection[str]) -> Reading:
        """What it says now.

        Raises:
            NoReading: nobody there, or no page with known series.
        """
        try:
            return await self._read(models)
        except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
            # The server may have been replaced by one of another kind.
            self._found = None
            raise NoReading(f"{type(error).__name__}: {error}") from error

    async def _read(self, models: Collection[str]) -> Reading:
        seen = []
        for path in (self._found,) if self._found else self._paths:
            status, body = await self._get(self._url + path)
            seen.append(f"{path} {status}")
            if status == httpx.codes.OK:
                reading = _reading(body, models)
                if reading is not None:
                    self._found = path
                    return reading
        self._found = None
        raise NoReading(f"no known series ({', '.join(seen)})")

    async def _get(self, url: str) -> tuple[int, bytes]:
        async with self._client.stream("GET", url) as answer:
            body = bytearray()
            async for chunk in answer.aiter_bytes():
                body += chunk
                if len(body) > _MAX_PAGE_BYTES:
                    raise NoReading(f"{url} has more than {_MAX_PAGE_BYTES} bytes")
            return answer.status_code, bytes(body)


def _reading(body: bytes, models: Collection[str]) -> Reading | None:
    if body.lstrip()[:1] == b"[":
        return read_iterations(body)
    return read_page(body.decode("utf-8", "replace"), models)
