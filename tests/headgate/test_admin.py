"""The admin side as a browser sees it."""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx
import pytest

from headgate.admin import admin_application
from headgate.health import Health
from headgate.live.board import LiveBoard
from headgate.metrics import Metrics
from headgate.policy.load import load_policy
from headgate.settings import DEFAULT_POLICY

POLICY = load_policy(DEFAULT_POLICY.read_bytes(), "default.yaml")


@pytest.fixture
def health() -> Health:
    return Health()


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


@pytest.fixture
async def admin(metrics: Metrics, health: Health) -> AsyncIterator[httpx.AsyncClient]:
    application = admin_application(metrics, health, lambda: POLICY, LiveBoard(lambda: 0.0))
    transport = httpx.ASGITransport(application)
    async with httpx.AsyncClient(transport=transport, base_url="http://admin") as client:
        yield client


async def test_metrics_are_shown_in_the_format_prometheus_reads(admin: httpx.AsyncClient, metrics: Metrics) -> None:
    metrics.decisions.labels("premium", "assistant", "best", "ADMIT", "").inc()

    page = await admin.get("/metrics")

    assert page.status_code == 200
    assert page.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert (
        'headgate_decisions_total{cluster="best",model="assistant",reason="",tier="premium",verdict="ADMIT"} 1.0'
        in (page.text)
    )


async def test_a_process_that_drains_is_alive_and_not_ready(admin: httpx.AsyncClient, health: Health) -> None:
    before = [await admin.get(path) for path in ("/healthz", "/readyz")]
    health.shut_down()
    after = [await admin.get(path) for path in ("/healthz", "/readyz")]

    assert [(page.status_code, page.text) for page in before] == [(200, "ok\n"), (200, "ready\n")]
    assert [(page.status_code, page.text) for page in after] == [(200, "ok\n"), (503, "draining\n")]


async def test_the_policy_is_shown_by_names(admin: httpx.AsyncClient) -> None:
    shown = (await admin.get("/policy")).json()

    assert shown["version"] == POLICY.version
    assert shown["tenants"]["acme"] == {"tier": "premium"}
    assert shown["tiers"]["premium"] == {
        "priority": 0,
        "tier_concurrency": 64,
        "tenant_concurrency": 16,
        "on_overload": ["queue", "degrade", "reject"],
    }
    assert shown["models"]["assistant"]["routes"][0] == {
        "when": 'tier == "premium" && prompt_tokens > 8000',
        "cluster": "long-context",
    }
    assert shown["models"]["assistant"]["routes"][3] == {"when": None, "cluster": "standard"}
    assert shown["models"]["assistant"]["degrade"] == ["fast"]
    assert shown["clusters"]["fast"] == {
        "frontends": {"triton": ["127.0.0.1:8000"], "openai": ["127.0.0.1:8011"], "kserve_grpc": ["127.0.0.1:8001"]},
        "capacity": {"requests": 64, "tokens": None, "prompt_tokens_per_minute": None},
    }


async def test_no_key_is_shown_not_even_as_a_digest(admin: httpx.AsyncClient) -> None:
    page = (await admin.get("/policy")).text

    assert POLICY.tenants_by_key
    assert not [digest for digest in POLICY.tenants_by_key if digest in page]


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/nothing", 404),
        ("POST", "/", 405),
        ("POST", "/live", 405),
        ("GET", "/policy/acme", 404),
        ("POST", "/policy", 405),
        ("DELETE", "/metrics", 405),
    ],
)
async def test_nothing_else_is_answered_and_nothing_can_be_changed(
    method: str, path: str, status: int, admin: httpx.AsyncClient
) -> None:
    assert (await admin.request(method, path)).status_code == status
