"""What tests say to an exchange, and what they expect of its answers."""

from __future__ import annotations

import json
from typing import Any

from extproc.events import (
    AcquireLease,
    BodyReceived,
    Continue,
    Decision,
    Effect,
    Forward,
    HeadersReceived,
    LeaseGranted,
    Phase,
    Report,
    Respond,
)
from extproc.exchange import Exchange
from extproc.headers import Headers
from extproc.tokens import estimate_tokens
from headgate.store import Lease, LeaseRequest

CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"
HELLO = "Hello, who are you?"
HELLO_TOKENS = estimate_tokens(HELLO)
HEADERS, BODY = Phase.REQUEST_HEADERS, Phase.REQUEST_BODY
LEASE = Lease(1, LeaseRequest(tenant="acme", tier="premium"), 0.0)
OTHER_LEASE = Lease(2, LeaseRequest(tenant="acme", tier="premium"), 0.0)


def headers(tenant: str = "acme", path: str = COMPLETIONS, *, is_end: bool = False, **more: str) -> HeadersReceived:
    """A POST with the tenant's key; more headers with `_` for `-`."""
    pairs = {":method": "POST", ":path": path, "x-request-id": "r-1", "authorization": f"Bearer {tenant}-key"}
    pairs |= {name.replace("_", "-"): value for name, value in more.items()}
    return HeadersReceived(Headers(pairs.items()), is_end)


def asking(path: str, tenant: str = "acme") -> HeadersReceived:
    """A GET."""
    return HeadersReceived(
        Headers({":method": "GET", ":path": path, "authorization": f"Bearer {tenant}-key"}.items()), is_end=True
    )


def body(**fields: Any) -> BodyReceived:
    return BodyReceived(json.dumps({"model": "assistant", "prompt": HELLO} | fields).encode(), is_end=True)


def start(exchange: Exchange, tenant: str = "acme", **fields: Any) -> list[Effect]:
    """Headers, which decide nothing, and the body's effects."""
    assert exchange.receive(headers(tenant), 0.0) == [Continue(HEADERS)]
    return exchange.receive(body(**fields), 0.001)


def admit(exchange: Exchange, tenant: str = "acme", **fields: Any) -> Forward:
    """The whole way to a slot that was free."""
    assert [type(effect) for effect in start(exchange, tenant, **fields)] == [AcquireLease]
    [forward, report] = exchange.receive(LeaseGranted(LEASE), 0.002)
    assert isinstance(forward, Forward)
    assert isinstance(report, Report)
    return forward


def refusal_of(effects: list[Effect]) -> tuple[Respond, Decision]:
    [respond, report] = effects
    assert isinstance(respond, Respond)
    assert isinstance(report, Report)
    return respond, report.decision
