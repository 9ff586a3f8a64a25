"""The admin side of a process: metrics, liveness, readiness, and the policy in force."""

from __future__ import annotations

from collections.abc import Callable

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from headgate.health import Health
from headgate.metrics import Metrics
from headgate.policy.model import Policy

_EXPOSITION = "text/plain; version=0.0.4; charset=utf-8"


def admin_application(
    metrics: Metrics, health: Health, policy: Callable[[], Policy], *, metrics_path: str = "/metrics"
) -> Starlette:
    """`/metrics`, `/healthz` (alive), `/readyz` (welcomes work), `/policy` (names and limits, no keys)."""

    async def show_metrics(request: Request) -> Response:
        del request
        return Response(metrics.exposition(), media_type=_EXPOSITION)

    async def alive(request: Request) -> Response:
        del request
        return PlainTextResponse("ok\n")

    async def ready(request: Request) -> Response:
        del request
        if health.is_serving:
            return PlainTextResponse("ready\n")
        return PlainTextResponse("draining\n", status_code=503)

    async def show_policy(request: Request) -> Response:
        del request
        return JSONResponse(summary(policy()))

    return Starlette(
        routes=[
            Route(metrics_path, show_metrics),
            Route("/healthz", alive),
            Route("/readyz", ready),
            Route("/policy", show_policy),
        ]
    )


def summary(policy: Policy) -> dict[str, object]:
    """The policy by names, without credentials."""
    return {
        "version": policy.version,
        "tenants": {tenant.name: {"tier": tenant.tier} for tenant in policy.tenants.values()},
        "tiers": {
            tier.name: {
                "priority": tier.priority,
                "tier_concurrency": tier.tier_concurrency,
                "tenant_concurrency": tier.tenant_concurrency,
                "on_overload": list(tier.on_overload),
            }
            for tier in policy.tiers.values()
        },
        "models": {
            model.name: {
                "routes": [
                    {"when": route.when.source if route.when else None, "cluster": route.cluster}
                    for route in model.routes
                ],
                "degrade": list(model.degrade),
            }
            for model in policy.models.values()
        },
        "clusters": {
            cluster.name: {
                "frontends": {f.protocol: list(f.endpoints) for f in cluster.frontends.values()},
                "capacity": {
                    "requests": "auto" if cluster.capacity.auto else cluster.capacity.requests,
                    "tokens": cluster.capacity.tokens,
                    "prompt_tokens_per_minute": cluster.capacity.prompt_tokens_per_minute,
                },
            }
            for cluster in policy.clusters.values()
        },
    }
