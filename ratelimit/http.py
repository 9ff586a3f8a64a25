"""The rate limit service over HTTP, as the reference offers it: `/json`, `/healthcheck`, and the debug pages."""

from __future__ import annotations

from collections.abc import Callable

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from headgate.errors import StoreUnavailable
from ratelimit.charges import Store
from ratelimit.explain import explain, parse_descriptor
from ratelimit.listing import listing
from ratelimit.matching import Configuration
from ratelimit.service import RateLimitService
from ratelimit.stats import Stats

_HELP = """/rlconfig: the configured limits
/stats: all counters
/explain?domain=DOMAIN&descriptor=KEY=VALUE,KEY=VALUE: which line limits a descriptor, and how it stands
"""


def http_application(service: RateLimitService, is_healthy: Callable[[], bool]) -> Starlette:
    """`/healthcheck` answers 200 `OK` or 500; `/json` takes a RateLimitRequest in JSON by any method."""

    async def healthcheck(request: Request) -> Response:
        del request
        if is_healthy():
            return Response(b"OK", media_type="text/plain")
        return Response(status_code=500)

    async def json(request: Request) -> Response:
        status, body = await service.json_request(await request.body())
        media_type = "application/json" if status in (200, 429) else "text/plain"
        return Response(body, status_code=status, media_type=media_type)

    methods = ["GET", "POST", "PUT", "PATCH", "DELETE"]
    return Starlette(routes=[Route("/healthcheck", healthcheck), Route("/json", json, methods=methods)])


def debug_application(configuration: Callable[[], Configuration], store: Store, stats: Stats) -> Starlette:
    """`/rlconfig`, `/stats`, `/explain`, and `/` which names them."""

    async def usage(request: Request) -> Response:
        del request
        return PlainTextResponse(_HELP)

    async def rlconfig(request: Request) -> Response:
        del request
        return PlainTextResponse("".join(f"{line}\n" for line in listing(configuration())))

    async def statistics(request: Request) -> Response:
        del request
        return PlainTextResponse("".join(f"{name}: {value}\n" for name, value in sorted(stats.named()) if value))

    async def explained(request: Request) -> Response:
        domain, descriptor = request.query_params.get("domain"), request.query_params.get("descriptor")
        if not domain or descriptor is None:
            return PlainTextResponse("domain and descriptor are needed\n", status_code=400)
        try:
            return JSONResponse(await explain(configuration(), store, domain, parse_descriptor(descriptor)))
        except StoreUnavailable as error:
            return PlainTextResponse(f"{error}\n", status_code=503)

    pages = {"/": usage, "/rlconfig": rlconfig, "/stats": statistics, "/explain": explained}
    return Starlette(routes=[Route(path, page) for path, page in pages.items()])
