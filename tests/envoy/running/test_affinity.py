"""Requests of one name meet on one endpoint, and those of many are spread."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from extproc.affinity import AFFINITY_HEADER, AffinityNames
from extproc.headers import Headers
from extproc.inspection.request import InferenceRequest
from headgate.policy.model import Affinity, Protocol

Stack = Any
NAMES = AffinityNames("salt")


def name(tenant: str, session: int) -> str:
    request = InferenceRequest(protocol=Protocol.OPENAI, model="m", session=str(session))
    return NAMES.name(Affinity.SESSION, tenant, Headers(()), request)


@pytest.fixture
def endpoint(stack: Stack, say: SimpleNamespace) -> Any:
    """Sends a request of this name, and tells which of the two endpoints got it."""

    def send(affinity: str, **headers: str) -> str:
        stack.extproc.on_body = lambda _: say.routed("shared", **({AFFINITY_HEADER: affinity} if affinity else {}))
        before = len(stack.models["standard"].requests)
        assert stack.post(**headers).status == 200
        return "standard" if len(stack.models["standard"].requests) > before else "best"

    return send


def test_a_session_stays_on_its_endpoint(endpoint: Any) -> None:
    for session in range(5):
        assert len({endpoint(name("acme", session)) for _ in range(6)}) == 1


def test_sessions_are_spread(endpoint: Any) -> None:
    found = [endpoint(name("acme", session)) for session in range(40)]

    assert min(found.count("standard"), found.count("best")) >= 8


def test_tenants_with_the_same_session_are_told_apart(endpoint: Any) -> None:
    pairs = [(endpoint(name("acme", session)), endpoint(name("globex", session))) for session in range(20)]

    assert 0 < sum(acme != globex for acme, globex in pairs) < len(pairs)


def test_a_client_cannot_pick_its_endpoint(stack: Stack, endpoint: Any) -> None:
    chosen = name("acme", 1)

    for other in range(2, 12):
        assert endpoint(name("acme", other), x_headgate_affinity=chosen) == endpoint(name("acme", other))
    assert all(AFFINITY_HEADER not in headers for headers in stack.extproc.headers)
