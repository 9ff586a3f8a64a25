"""The rate limit service over HTTP, as the reference offers it: `/json` and `/healthcheck`."""

from __future__ import annotations

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from headgate.health import Health
from ratelimit.service import RateLimitService


def http_application(service: RateLimitService, health: Health) -> Starlette:
    """`/healthcheck` answers 200 `OK` or 500; `/json` takes a RateLimitRequest in JSON by any method."""

    async def healthcheck(request: Request) -> Response:
        del request
        if health.is_serving and service.health():
            return Response(b"OK", media_type="text/plain")
        return Response(status_code=500)

    async def json(request: Request) -> Response:
        status, body = await service.json_request(await request.body())
        media_type = "application/json" if status in (200, 429) else "text/plain"
        return Response(body, status_code=status, media_type=media_type)

    methods = ["GET", "POST", "PUT", "PATCH", "DELETE"]
    return Starlette(routes=[Route("/healthcheck", healthcheck), Route("/json", json, methods=methods)])
