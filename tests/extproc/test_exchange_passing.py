"""Requests that run no model: answered here, or sent on within their tenant's limit."""

from __future__ import annotations

from typing import Any

import pytest

from extproc.events import (
    AcquireLease,
    BodyReceived,
    Continue,
    Forward,
    LeaseGranted,
    LeaseRefused,
    ReleaseLease,
    Respond,
    StreamEnded,
)
from extproc.exchange import Exchange
from headgate.policy.model import (
    Policy,
)
from headgate.store import LeaseRequest, Scope
from headgate.transport import StatusCode
from tests.extproc.exchanges import (
    BODY,
    HEADERS,
    LEASE,
    asking,
    headers,
    refusal_of,
)


@pytest.mark.parametrize("path", ["/metrics", "/v1/files", "/v2/repository/index", "/v2/models/assistant/load"])
def test_any_other_path_goes_on_within_its_tenants_concurrency(policy: Policy, signals: Any, path: str) -> None:
    exchange = Exchange(policy, signals)

    assert exchange.receive(headers("hobby", path), 0.0) == [
        AcquireLease(LeaseRequest(tenant="hobby", tier="best_effort", tenant_limit=1), priority=2)
    ]
    [forward, _] = exchange.receive(LeaseGranted(LEASE), 0.001)
    assert isinstance(forward, Forward)
    assert forward.phase is HEADERS
    assert (forward.set_headers["x-headgate-tenant"], forward.decision.charged_tokens) == ("hobby", 0)
    assert exchange.receive(BodyReceived(b"anything", is_end=True), 0.002) == [Continue(BODY)]
    assert exchange.receive(StreamEnded(), 1.0) == [ReleaseLease(LEASE)]


def test_any_other_path_is_refused_at_its_tenants_limit_and_never_waits(policy: Policy, signals: Any) -> None:
    exchange = Exchange(policy, signals)
    exchange.receive(headers("acme", "/metrics"), 0.0)

    respond, decision = refusal_of(exchange.receive(LeaseRefused(Scope.TENANT, 0.5), 0.001))

    assert (respond.status, decision.reason, decision.protocol) == (429, "tenant_concurrency", "other")


@pytest.mark.parametrize("path", ["/v1/models", "/v1/models/assistant", "/v2", "/v2/health/ready"])
def test_questions_about_the_policy_are_answered_here(policy: Policy, signals: Any, path: str) -> None:
    exchange = Exchange(policy, signals)

    [respond] = exchange.receive(asking(path), 0.0)

    assert isinstance(respond, Respond)
    assert (respond.status, respond.grpc_status) == (200, StatusCode.OK)
    assert exchange.receive(StreamEnded(), 1.0) == []


def test_questions_about_a_triton_model_go_to_it_under_its_own_name(policy: Policy, signals: Any) -> None:
    [forward, _] = Exchange(policy, signals).receive(asking("/v2/models/assistant/config"), 0.0)

    assert isinstance(forward, Forward)
    assert (
        forward.set_headers.items()
        >= {
            "x-model-cluster": "best.triton",
            ":path": "/v2/models/ensemble/config",
        }.items()
    )
