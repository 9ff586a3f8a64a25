"""Requests that are refused for what they are: at their headers, before a byte of the body, or at the body."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from extproc.events import (
    AcquireLease,
    BodyReceived,
    Continue,
    Forward,
    HeadersReceived,
    LeaseGranted,
    Report,
    Respond,
    StreamEnded,
    Verdict,
)
from extproc.exchange import Exchange
from extproc.headers import Headers
from headgate.policy.model import (
    ApiKeyIdentity,
    Policy,
    Protocol,
    Route,
    TenantLimits,
)
from headgate.store import Scope
from headgate.transport import StatusCode
from tests.extproc.exchanges import (
    HEADERS,
    LEASE,
    asking,
    body,
    headers,
    refusal_of,
    start,
)

# who


@pytest.mark.parametrize(
    ("made_by", "reason"), [("nobody", "invalid_credential"), ("acme", ""), ("globex", ""), ("hobby", "")]
)
def test_a_wrong_key_is_refused_at_the_headers(policy: Policy, signals: Any, made_by: str, reason: str) -> None:
    effects = Exchange(policy, signals).receive(headers(made_by), 0.0)

    if not reason:
        assert effects == [Continue(HEADERS)]
        return
    respond, decision = refusal_of(effects)
    assert (respond.status, respond.grpc_status) == (401, StatusCode.UNAUTHENTICATED)
    assert respond.details == "headgate_invalid_credential"
    assert (decision.verdict, decision.reason, decision.status) == (Verdict.REJECT, reason, 401)
    assert (decision.tenant, decision.tier) == ("", "")


def test_without_an_anonymous_tenant_nobody_comes_in_unnamed(policy: Policy, signals: Any) -> None:
    keys_only = replace(policy, identity=(ApiKeyIdentity(header="authorization"),))

    effects = Exchange(keys_only, signals).receive(headers(authorization=""), 0.0)

    assert refusal_of(effects)[1].reason == "missing_credential"


# refused before the body


@pytest.mark.parametrize(
    ("received", "status", "reason"),
    [
        (headers("hobby", content_length="65537"), 413, "body_too_large"),
        (headers(path="/v2/models/nope/generate"), 404, "unknown_model"),
        (headers(path="/v2/models/nope/config"), 404, "unknown_model"),
        (headers(content_encoding="br"), 415, "bad_request"),
        (headers(content_encoding="zstd"), 415, "bad_request"),
        (headers(path="/v1/messages/count_tokens"), 404, "protocol_not_served"),
        (headers(is_end=True), 400, "bad_request"),
        (asking("/v1/models/nope"), 404, "unknown_model"),
    ],
)
def test_what_the_headers_show_is_refused_before_a_byte_of_the_body(
    policy: Policy, signals: Any, received: HeadersReceived, status: int, reason: str
) -> None:
    respond, decision = refusal_of(Exchange(policy, signals).receive(received, 0.0))

    assert (respond.status, decision.reason) == (status, reason)
    assert respond.decision.verdict == "REJECT"


def test_a_question_for_a_count_is_answered_in_anthropics_words(policy: Policy, signals: Any) -> None:
    [respond, _] = Exchange(policy, signals).receive(headers(path="/v1/messages/count_tokens"), 0.0)

    assert isinstance(respond, Respond)
    assert json.loads(respond.body) == {
        "type": "error",
        "error": {
            "type": "not_found_error",
            "message": "Tokens are not counted here without running the model; every answer tells its own usage.",
        },
    }


def test_a_compression_that_cannot_be_read_is_told_those_that_can(policy: Policy, signals: Any) -> None:
    [respond, _] = Exchange(policy, signals).receive(headers(content_encoding="br"), 0.0)

    assert isinstance(respond, Respond)
    assert respond.headers["accept-encoding"] == "gzip, deflate"


@pytest.mark.parametrize(
    "received",
    [
        headers("hobby", content_length="65536"),
        headers("hobby", content_length="nonsense"),
        headers(content_encoding="identity"),
        headers(path="/v2/models/assistant/infer"),
    ],
)
def test_what_may_still_be_right_waits_for_the_body(policy: Policy, signals: Any, received: HeadersReceived) -> None:
    assert Exchange(policy, signals).receive(received, 0.0) == [Continue(HEADERS)]


def test_a_tenant_at_its_limit_is_refused_at_the_headers_where_its_tier_never_waits(
    policy: Policy, signals: Any
) -> None:
    signals.leases[(Scope.TENANT, "hobby")] = 1

    respond, decision = refusal_of(Exchange(policy, signals).receive(headers("hobby"), 0.0))

    assert (respond.status, respond.headers["retry-after"], decision.reason) == (429, "1", "tenant_concurrency")


def test_a_tenant_at_its_limit_may_send_its_body_where_its_tier_can_wait(
    signals: Any, revise: Callable[..., Policy]
) -> None:
    policy = revise(tenants={"acme": {"limits": TenantLimits(concurrency=1)}})
    signals.leases[(Scope.TENANT, "acme")] = 1

    assert Exchange(policy, signals).receive(headers("acme"), 0.0) == [Continue(HEADERS)]


# by its path


@pytest.mark.parametrize(
    ("path", "status", "reason"),
    [
        ("/v1/embeddings", 404, "protocol_not_served"),
        ("/v1/messages", 404, "protocol_not_served"),
        ("/v2/models/nope/generate", 404, "unknown_model"),
    ],
)
def test_what_the_path_alone_makes_impossible_is_refused_before_the_body(
    policy: Policy, signals: Any, path: str, status: int, reason: str
) -> None:
    [respond, report] = Exchange(policy, signals).receive(headers("acme", path), 0.0)

    assert isinstance(respond, Respond)
    assert isinstance(report, Report)
    assert (respond.status, report.decision.reason) == (status, reason)


def test_a_triton_model_that_only_speaks_openais_api_is_refused_before_the_body(
    policy: Policy, signals: Any, revise: Callable[..., Policy]
) -> None:
    only_standard = revise(models={"sentiment": {"routes": (Route(cluster="standard"),)}})

    [respond, _] = Exchange(only_standard, signals).receive(headers("acme", "/v2/models/sentiment/infer"), 0.0)

    assert isinstance(respond, Respond)
    assert respond.status == 404


@pytest.mark.parametrize("path", ["/health", "/v1/health/ready", "/ping"])
def test_health_is_answered_here_and_counted_nowhere(policy: Policy, signals: Any, path: str) -> None:
    request = HeadersReceived(Headers([(":method", "GET"), (":path", path)]), is_end=True)

    [respond] = Exchange(policy, signals).receive(request, 0.0)

    assert isinstance(respond, Respond)
    assert (respond.status, respond.body) == (200, b"")


def test_an_anthropic_client_runs_where_messages_are_served_and_its_images_count(
    policy: Policy, signals: Any, revise: Callable[..., Policy]
) -> None:
    standard = policy.clusters["standard"]
    serving = replace(standard.frontends[Protocol.OPENAI], operations=frozenset({"messages"}))
    policy = revise(
        clusters={"standard": {"frontends": {Protocol.OPENAI: serving}}}, models={"assistant": {"image_tokens": 500}}
    )
    exchange = Exchange(policy, signals)
    exchange.receive(headers("globex", "/v1/messages"), 0.0)
    image = {"type": "image", "source": {"type": "url", "url": "https://x"}}
    message = {"model": "assistant", "max_tokens": 5, "messages": [{"role": "user", "content": [image]}]}

    [acquire] = exchange.receive(BodyReceived(json.dumps(message).encode(), is_end=True), 0.001)
    [forward, _] = exchange.receive(LeaseGranted(LEASE), 0.002)

    assert isinstance(acquire, AcquireLease)
    assert (acquire.request.cluster, acquire.request.tokens) == ("standard", 500 + 4 + 5)
    assert isinstance(forward, Forward)
    assert forward.set_headers["x-model-cluster"] == "standard"
    assert (forward.decision.protocol, forward.decision.operation) == ("anthropic", "messages")


# refused at the body


@pytest.mark.parametrize(
    ("tenant", "received", "status", "reason"),
    [
        ("acme", BodyReceived(b"", is_end=True), 400, "bad_request"),
        ("acme", BodyReceived(b"no healthy upstream", is_end=True), 400, "bad_request"),
        ("acme", BodyReceived(b'{"prompt":"hello world"}', is_end=True), 400, "bad_request"),
        ("acme", BodyReceived(b'{"model":"assist', is_end=False), 400, "bad_request"),
        ("acme", BodyReceived(b"[" * 100_000, is_end=True), 400, "bad_request"),
        ("acme", body(max_tokens=0), 400, "bad_request"),
        ("acme", body(model="gpt-9"), 404, "unknown_model"),
        ("acme", body(model=""), 404, "unknown_model"),
        ("acme", body(model="sentiment"), 404, "protocol_not_served"),
        ("acme", body(n=128), 400, "context_too_long"),
        ("hobby", body(prompt="x" * 65_536), 413, "body_too_large"),
    ],
)
def test_a_body_that_cannot_run_is_refused_without_a_question_to_the_store(
    policy: Policy, signals: Any, tenant: str, received: BodyReceived, status: int, reason: str
) -> None:
    exchange = Exchange(policy, signals)
    assert exchange.receive(headers(tenant), 0.0) == [Continue(HEADERS)]

    respond, decision = refusal_of(exchange.receive(received, 0.001))

    assert (respond.status, decision.reason) == (status, reason)
    assert exchange.receive(StreamEnded(), 1.0) == []


def test_a_refusal_is_written_in_the_clients_own_format(policy: Policy, signals: Any) -> None:
    triton = Exchange(policy, signals)
    triton.receive(headers(path="/v2/models/assistant/generate"), 0.0)
    openai = Exchange(policy, signals)
    openai.receive(headers(), 0.0)

    in_triton, _ = refusal_of(triton.receive(BodyReceived(b"{", is_end=True), 0.001))
    in_openai, _ = refusal_of(openai.receive(BodyReceived(b"{", is_end=True), 0.001))

    message = "The request body is not valid JSON: Input data was truncated."
    assert json.loads(in_triton.body) == {"error": message}
    assert json.loads(in_openai.body)["error"]["message"] == message


def test_no_refusal_repeats_the_prompt(policy: Policy, signals: Any) -> None:
    respond, decision = refusal_of(start(Exchange(policy, signals), prompt=["my secret", 7]))

    assert b"secret" not in respond.body
    assert "secret" not in repr((respond, decision))
