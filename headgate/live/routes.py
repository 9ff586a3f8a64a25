"""The live page over HTTP: `/` and its two files, and `/live`, the JSON it asks for every second."""

from __future__ import annotations

from pathlib import Path

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from headgate.live.board import LiveBoard

_FILES = {
    "/": ("page.html", "text/html; charset=utf-8"),
    "/live.css": ("page.css", "text/css; charset=utf-8"),
    "/live.js": ("page.js", "text/javascript; charset=utf-8"),
}
_HEADERS = {
    # Nothing from anywhere else, and nothing inline: a name that reached the page as a script would not run.
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self';"
    " img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "cache-control": "no-store",
}


def live_routes(board: LiveBoard) -> list[Route]:
    """What an admin side serves besides the rest."""

    async def show_live(request: Request) -> Response:
        del request
        return Response(msgspec.json.encode(board.snapshot()), media_type="application/json", headers=_HEADERS)

    return [*(_file(path, *file) for path, file in _FILES.items()), Route("/live", show_live)]


def _file(path: str, name: str, media_type: str) -> Route:
    content = (Path(__file__).parent / name).read_bytes()

    async def show(request: Request) -> Response:
        del request
        return Response(content, media_type=media_type, headers=_HEADERS)

    return Route(path, show)
