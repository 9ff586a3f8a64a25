"""Requests from their headers to the end of their stream, as transcripts: what comes in, what goes out."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from extproc.events import (
    AcquireLease,
    BodyReceived,
    Continue,
    Decision,
    Effect,
    Event,
    Forward,
    HeadersReceived,
    JoinQueue,
    LeaseGranted,
    LeaseRefused,
    OtherReceived,
    Phase,
    ReleaseLease,
    Report,
    Respond,
    StoreFailed,
    StreamEnded,
    TurnedAway,
    Verdict,
)
from extproc.exchange import Exchange
from extproc.headers import Headers
from extproc.tokens import estimate_tokens
from headgate.policy.model import (
    ApiKeyIdentity,
    Capacity,
    OnStoreFailure,
    OutputTokens,
    Policy,
    Protocol,
    Queue,
    Route,
    Rung,
    TenantLimits,
)
from headgate.store import Lease, LeaseRequest, Scope
from headgate.transport import StatusCode

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


# admitted


def test_a_request_is_admitted_and_holds_its_slot_until_its_stream_ends(policy: Policy, signals: Any) -> None:
    exchange = Exchange(policy, signals)

    assert exchange.receive(headers("acme"), 0.0) == [Continue(HEADERS)]
    assert exchange.receive(body(max_tokens=5000), 0.001) == [
        AcquireLease(
            LeaseRequest(
                tenant="acme",
                tier="premium",
                cluster="best",
                tokens=HELLO_TOKENS + 1000,
                cluster_limit=2,
                cluster_token_limit=50_000,
                prompt_tokens=HELLO_TOKENS,
            ),
            priority=0,
        )
    ]
    decided = Decision(
        request_id="r-1",
        verdict=Verdict.ADMIT,
        reason="",
        status=200,
        tenant="acme",
        tier="premium",
        model="assistant",
        cluster="best",
        protocol="openai",
        operation="text_completion",
        prompt_tokens=HELLO_TOKENS,
        max_output_tokens=1000,
        charged_tokens=HELLO_TOKENS + 1000,
        uncorrected_prompt_tokens=HELLO_TOKENS,
    )
    new_body = b'{"model":"llama-70b","prompt":"%b","max_tokens":1000}' % HELLO.encode()
    assert exchange.receive(LeaseGranted(LEASE), 0.002) == [
        Forward(
            phase=BODY,
            set_headers={
                "x-model-cluster": "best.openai",
                "x-headgate-tenant": "acme",
                "x-headgate-tier": "premium",
                "x-headgate-model": "assistant",
                "content-length": str(len(new_body)),
            },
            body=new_body,
            decision=decided,
        ),
        Report(decided),
    ]
    assert exchange.receive(OtherReceived(Phase.RESPONSE_TRAILERS), 5.0) == [Continue(Phase.RESPONSE_TRAILERS)]
    assert exchange.receive(StreamEnded(), 6.0) == [ReleaseLease(LEASE)]
    assert exchange.receive(StreamEnded(), 6.0) == []


def test_a_body_that_needs_no_change_is_not_sent_back(policy: Policy, signals: Any) -> None:
    exchange = Exchange(policy, signals)
    exchange.receive(headers(path="/v2/models/assistant/generate"), 0.0)
    exchange.receive(BodyReceived(b'{ "text_input" : "hi", "max_tokens":7 }', is_end=True), 0.001)

    [forward, _] = exchange.receive(LeaseGranted(LEASE), 0.002)

    assert isinstance(forward, Forward)
    assert forward.body is None
    assert "content-length" not in forward.set_headers
    assert forward.set_headers[":path"] == "/v2/models/ensemble/generate"
    assert forward.set_headers["x-model-cluster"] == "best.triton"


def test_a_tiers_default_is_written_into_a_request_that_names_no_limit(policy: Policy, signals: Any) -> None:
    forward = admit(Exchange(policy, signals), "globex")

    assert forward.body is not None
    assert json.loads(forward.body) == {"model": "llama-8b", "prompt": HELLO, "max_tokens": 256}


def test_the_reason_of_a_route_is_the_reason_of_the_decision(policy: Policy, signals: Any) -> None:
    decision = admit(Exchange(policy, signals), "globex").decision

    assert decision is not None
    assert (decision.verdict, decision.reason, decision.text) == ("ADMIT", "everyone", "admit; reason=everyone")


def test_a_buffered_body_is_whole_though_trailers_follow(policy: Policy, signals: Any) -> None:
    exchange = Exchange(policy, signals)
    exchange.receive(HeadersReceived(headers().headers, is_end=False, is_buffered=True), 0.0)

    [acquire] = exchange.receive(BodyReceived(body().body, is_end=False), 0.001)

    assert isinstance(acquire, AcquireLease)
    assert exchange.receive(OtherReceived(Phase.REQUEST_TRAILERS), 0.002) == [Continue(Phase.REQUEST_TRAILERS)]
    assert exchange.receive(BodyReceived(body().body, is_end=False), 0.003) == [Continue(BODY)]
    assert [type(effect) for effect in exchange.receive(LeaseGranted(LEASE), 0.004)] == [Forward, Report]


def test_headers_a_client_made_up_are_overwritten(policy: Policy, signals: Any) -> None:
    exchange = Exchange(policy, signals)
    made_up = {"x_model_cluster": "tiny", "x_headgate_tier": "premium", "x_headgate_tenant": "acme"}
    exchange.receive(headers("hobby", **made_up, x_headgate_model="m"), 0.0)
    exchange.receive(body(), 0.001)

    [forward, _] = exchange.receive(LeaseGranted(LEASE), 0.002)

    assert isinstance(forward, Forward)
    assert (
        forward.set_headers.items()
        >= {
            "x-model-cluster": "standard",
            "x-headgate-tier": "best_effort",
            "x-headgate-tenant": "hobby",
            "x-headgate-model": "assistant",
        }.items()
    )


def test_a_charge_beyond_what_envoy_can_count_is_the_most_it_can(signals: Any, revise: Callable[..., Policy]) -> None:
    unlimited = revise(
        clusters={"standard": {"capacity": Capacity()}}, tiers={"interactive": {"output_tokens": OutputTokens()}}
    )

    decision = admit(Exchange(unlimited, signals), "globex", max_tokens=2**31 - 1).decision

    assert decision is not None
    # A larger addend makes Envoy leave the descriptor out, and with it the tenant's token limit.
    assert decision.charged_tokens == 10**9


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


# contended


@pytest.mark.parametrize(
    ("sent", "max_wait_seconds", "give_up_reason"),
    [
        ({"x-stainless-read-timeout": "600"}, 2.0, "queue_timeout"),
        ({"x-stainless-read-timeout": "2.5"}, 2.0, "queue_timeout"),
        ({"x-stainless-read-timeout": "1.5"}, 1.5, "client_deadline"),
        ({"grpc-timeout": "500m"}, 0.5, "client_deadline"),
        ({"grpc-timeout": "500m", "x-stainless-read-timeout": "0.25"}, 0.25, "client_deadline"),
        ({"x-stainless-read-timeout": "soon"}, 2.0, "queue_timeout"),
        ({"x-stainless-read-timeout": "NOT_GIVEN"}, 2.0, "queue_timeout"),
        ({"x-stainless-read-timeout": "-1"}, 2.0, "queue_timeout"),
        ({"x-stainless-read-timeout": "9" * 400}, 2.0, "queue_timeout"),
        ({"x-stainless-read-timeout": "0"}, 0.0, "client_deadline"),
        ({"grpc-timeout": "1 S"}, 2.0, "queue_timeout"),
        ({"grpc-timeout": "99999999H"}, 2.0, "queue_timeout"),
        ({"grpc-timeout": "0n"}, 0.0, "client_deadline"),
    ],
)
def test_nobody_waits_longer_than_the_client_does(
    policy: Policy, signals: Any, sent: dict[str, str], max_wait_seconds: float, give_up_reason: str
) -> None:
    exchange = Exchange(policy, signals)
    exchange.receive(headers("acme", **sent), 10.0)
    exchange.receive(body(), 10.0)

    [join] = exchange.receive(LeaseRefused(Scope.CLUSTER, 0.5), 10.0)

    assert isinstance(join, JoinQueue)
    assert (join.max_wait_seconds, join.give_up_reason) == (max_wait_seconds, give_up_reason)


def test_the_time_a_client_has_spent_already_counts(policy: Policy, signals: Any) -> None:
    exchange = Exchange(policy, signals)
    exchange.receive(headers("acme", **{"x-stainless-read-timeout": "1.5"}), 10.0)
    exchange.receive(body(), 10.5)

    [join] = exchange.receive(LeaseRefused(Scope.CLUSTER, 0.5), 11.0)

    assert isinstance(join, JoinQueue)
    assert join.max_wait_seconds == 0.5


def test_a_full_cluster_is_waited_for_and_the_wait_is_told(policy: Policy, signals: Any) -> None:
    exchange = Exchange(policy, signals)
    [acquire] = start(exchange)
    assert isinstance(acquire, AcquireLease)

    assert exchange.receive(LeaseRefused(Scope.CLUSTER, 0.5), 0.002) == [
        JoinQueue(
            request=acquire.request,
            queue=Queue(max_wait_seconds=2.0, max_depth=2),
            priority=0,
            weight=1.0,
            size_bytes=len(body().body),
            max_wait_seconds=2.0,
            give_up_reason="queue_timeout",
            scope=Scope.CLUSTER,
        )
    ]
    [forward, report] = exchange.receive(LeaseGranted(LEASE, waited_seconds=0.75), 0.752)

    assert isinstance(forward, Forward)
    assert isinstance(report, Report)
    assert forward.decision.text == "queue; wait=750ms"
    assert (forward.decision.verdict, forward.decision.queue_wait_seconds) == ("QUEUE", 0.75)
    assert (report.decision.verdict, report.decision.queue_wait_seconds) == (Verdict.QUEUE, 0.75)
    assert exchange.receive(StreamEnded(), 3.0) == [ReleaseLease(LEASE)]


@pytest.mark.parametrize("queue_reason", ["queue_full", "queue_too_long", "queue_timeout"])
def test_after_the_queue_a_request_runs_smaller_and_the_reason_is_the_queues(
    policy: Policy, signals: Any, queue_reason: str
) -> None:
    exchange = Exchange(policy, signals)
    start(exchange)
    exchange.receive(LeaseRefused(Scope.CLUSTER, 0.5), 0.002)

    [acquire] = exchange.receive(LeaseRefused(Scope.CLUSTER, 1.0, queue_reason, 2.0), 2.002)
    [forward, report] = exchange.receive(LeaseGranted(LEASE), 2.003)

    assert isinstance(acquire, AcquireLease)
    assert (acquire.request.cluster, acquire.request.tokens) == ("fast", HELLO_TOKENS + 300)
    assert isinstance(forward, Forward)
    assert forward.body is not None
    assert json.loads(forward.body) == {"model": "llama-1b", "prompt": HELLO, "max_tokens": 300}
    assert forward.set_headers["x-model-cluster"] == "fast.openai"
    assert forward.decision.text == f"degrade; reason={queue_reason}; wait=2000ms"
    assert isinstance(report, Report)
    assert (report.decision.verdict, report.decision.cluster) == (Verdict.DEGRADE, "fast")


def test_a_cheaper_cluster_that_is_full_too_hands_on_to_the_next(policy: Policy, signals: Any) -> None:
    exchange = Exchange(policy, signals)
    tried = [start(exchange, "globex")]
    while isinstance(tried[-1][0], AcquireLease):
        tried.append(exchange.receive(LeaseRefused(Scope.CLUSTER, 0.5), 0.002))

    clusters = [effect.request.cluster for [effect] in tried[:-1] if isinstance(effect, AcquireLease)]
    respond, decision = refusal_of(tried[-1])
    assert clusters == ["standard", "fast", "tiny"]
    assert (respond.status, respond.headers["retry-after-ms"], decision.reason) == (429, "500", "cluster_concurrency")


def test_a_place_that_could_never_hold_the_request_is_not_among_the_cheaper_ones(
    signals: Any, revise: Callable[..., Policy]
) -> None:
    policy = revise(clusters={"fast": {"capacity": Capacity(tokens=100)}})
    exchange = Exchange(policy, signals)
    start(exchange, "globex")

    [acquire] = exchange.receive(LeaseRefused(Scope.CLUSTER, 0.5), 0.002)

    assert isinstance(acquire, AcquireLease)
    assert acquire.request.cluster == "tiny"


@pytest.mark.parametrize("scope", [Scope.TENANT, Scope.TIER])
def test_a_limit_of_ones_own_is_waited_for_and_then_refused_but_never_degraded(
    policy: Policy, signals: Any, scope: Scope
) -> None:
    exchange = Exchange(policy, signals)
    start(exchange)

    [joining] = exchange.receive(LeaseRefused(scope, 0.5), 0.002)
    respond, decision = refusal_of(exchange.receive(LeaseRefused(scope, 1.0, "queue_timeout", 2.0), 2.002))

    assert isinstance(joining, JoinQueue)
    assert (respond.status, decision.verdict, decision.reason) == (429, Verdict.REJECT, "queue_timeout")
    assert decision.queue_wait_seconds == 2.0
    assert respond.decision.text == "reject; reason=queue_timeout; wait=2000ms"


def test_where_a_tier_only_rejects_the_scope_is_the_reason(policy: Policy, signals: Any) -> None:
    exchange = Exchange(policy, signals)
    start(exchange, "hobby")

    respond, decision = refusal_of(exchange.receive(LeaseRefused(Scope.TIER, 3.2), 0.002))

    assert (respond.status, respond.grpc_status) == (429, StatusCode.RESOURCE_EXHAUSTED)
    assert (respond.headers["retry-after"], respond.headers["retry-after-ms"]) == ("4", "3200")
    assert (decision.reason, decision.cluster) == ("tier_concurrency", "standard")


def test_a_tier_that_degrades_before_it_queues_waits_for_its_first_choice(
    signals: Any, revise: Callable[..., Policy]
) -> None:
    ladder = (Rung.DEGRADE, Rung.QUEUE, Rung.REJECT)
    exchange = Exchange(revise(tiers={"premium": {"on_overload": ladder}}), signals)
    asked = [start(exchange)]
    asked += [exchange.receive(LeaseRefused(Scope.CLUSTER, 0.5), 0.002) for _ in range(3)]

    steps = [
        (type(effect), effect.request.cluster) for [effect] in asked if isinstance(effect, AcquireLease | JoinQueue)
    ]
    assert steps == [(AcquireLease, "best"), (AcquireLease, "fast"), (AcquireLease, "tiny"), (JoinQueue, "best")]
    [forward, _] = exchange.receive(LeaseGranted(LEASE, 0.5), 0.6)
    assert isinstance(forward, Forward)
    assert (forward.decision.verdict, forward.decision.cluster) == ("QUEUE", "best")


def test_the_first_refusal_begins_a_degradation_and_the_next_request_starts_degraded(
    policy: Policy, signals: Any
) -> None:
    first = Exchange(policy, signals)
    start(first, "globex")
    first.receive(LeaseRefused(Scope.CLUSTER, 0.5), 0.002)
    assert signals.degraded == {("interactive", "standard"): Scope.CLUSTER}

    exchange = Exchange(policy, signals)
    [acquire] = start(exchange, "globex")
    [forward, report] = exchange.receive(LeaseGranted(LEASE), 0.002)

    assert isinstance(acquire, AcquireLease)
    assert acquire.request.cluster == "fast"
    assert isinstance(forward, Forward)
    assert forward.decision.text == "degrade; reason=cluster_recovering"
    assert isinstance(report, Report)
    assert report.decision.reason == "cluster_recovering"


def test_a_request_starts_at_a_cheaper_cluster_and_says_why_while_its_own_takes_none(
    policy: Policy, signals: Any
) -> None:
    signals.unavailable |= {"best", "fast"}
    exchange = Exchange(policy, signals)
    [acquire] = start(exchange)
    [forward, report] = exchange.receive(LeaseGranted(LEASE), 0.002)

    assert isinstance(acquire, AcquireLease)
    assert acquire.request.cluster == "tiny"
    assert isinstance(forward, Forward)
    assert forward.decision.text == "degrade; reason=cluster_unavailable"
    assert isinstance(report, Report)
    assert (report.decision.verdict, report.decision.reason) == ("DEGRADE", "cluster_unavailable")


@pytest.mark.parametrize(
    ("tenant", "unavailable"), [("acme", {"best", "fast", "tiny"}), ("hobby", {"standard"})], ids=["all", "no degrade"]
)
def test_where_nothing_cheaper_takes_requests_either_one_goes_where_it_always_went(
    policy: Policy, signals: Any, tenant: str, unavailable: set[str]
) -> None:
    signals.unavailable |= unavailable
    exchange = Exchange(policy, signals)
    [acquire] = start(exchange, tenant)
    [forward, _] = exchange.receive(LeaseGranted(LEASE), 0.002)

    assert isinstance(acquire, AcquireLease)
    assert acquire.request.cluster == ("best" if tenant == "acme" else "standard")
    assert isinstance(forward, Forward)
    assert forward.decision.verdict == "ADMIT"


def test_a_degraded_tier_takes_the_room_its_first_choice_has_before_it_is_told_no(policy: Policy, signals: Any) -> None:
    signals.degraded[("interactive", "standard")] = Scope.CLUSTER
    exchange = Exchange(policy, signals)
    start(exchange, "globex")
    for _ in range(2):
        [acquire] = exchange.receive(LeaseRefused(Scope.CLUSTER, 0.5), 0.002)

    [forward, _] = exchange.receive(LeaseGranted(LEASE), 0.003)

    assert isinstance(acquire, AcquireLease)
    assert acquire.request.cluster == "standard"
    assert isinstance(forward, Forward)
    assert (forward.decision.verdict, forward.decision.reason) == ("ADMIT", "everyone")


def test_a_refusal_of_ones_own_scope_degrades_nobody_else(policy: Policy, signals: Any) -> None:
    exchange = Exchange(policy, signals)
    start(exchange, "globex")
    exchange.receive(LeaseRefused(Scope.TENANT, 0.5), 0.002)

    assert signals.degraded == {}


@pytest.mark.parametrize(("limit", "is_told"), [(0, True), (1, False)])
def test_a_limit_of_zero_is_refused_for_good(
    signals: Any, revise: Callable[..., Policy], limit: int, is_told: bool
) -> None:
    exchange = Exchange(revise(clusters={"standard": {"capacity": Capacity(requests=limit)}}), signals)
    start(exchange, "hobby")

    respond, _ = refusal_of(exchange.receive(LeaseRefused(Scope.CLUSTER, 0.5), 0.002))

    assert (respond.headers.get("x-should-retry") == "false") == is_told
    assert ("retry-after" in respond.headers) != is_told


@pytest.mark.parametrize(
    ("zero", "scope", "reason"),
    [
        ({"tiers": {"premium": {"tier_concurrency": 0}}}, Scope.TIER, "tier_concurrency"),
        ({"clusters": {"best": {"capacity": Capacity(requests=0)}}}, Scope.CLUSTER, "cluster_concurrency"),
    ],
)
def test_nobody_waits_for_what_a_limit_of_zero_lets_nobody_have(
    signals: Any, revise: Callable[..., Policy], zero: Any, scope: Scope, reason: str
) -> None:
    exchange = Exchange(revise(**zero, models={"assistant": {"degrade": ()}}), signals)
    start(exchange)

    respond, decision = refusal_of(exchange.receive(LeaseRefused(scope, 0.5), 0.002))

    assert (respond.status, decision.reason, respond.headers["x-should-retry"]) == (429, reason, "false")


def test_a_cluster_closed_by_a_limit_of_zero_is_degraded_from_at_once(
    signals: Any, revise: Callable[..., Policy]
) -> None:
    exchange = Exchange(revise(clusters={"best": {"capacity": Capacity(requests=0)}}), signals)
    start(exchange)

    [acquire] = exchange.receive(LeaseRefused(Scope.CLUSTER, 0.5), 0.002)

    assert isinstance(acquire, AcquireLease)
    assert acquire.request.cluster == "fast"


def test_a_tenant_that_may_run_nothing_is_refused_at_the_headers_though_its_tier_waits(
    signals: Any, revise: Callable[..., Policy]
) -> None:
    policy = revise(tenants={"acme": {"limits": TenantLimits(concurrency=0)}})

    respond, decision = refusal_of(Exchange(policy, signals).receive(headers("acme"), 0.0))

    assert (respond.status, decision.reason) == (429, "tenant_concurrency")
    assert respond.headers["x-should-retry"] == "false"


def test_what_was_learnt_of_a_cluster_is_its_limit(policy: Policy, signals: Any) -> None:
    signals.limits["best"] = 17

    [acquire] = start(Exchange(policy, signals))

    assert isinstance(acquire, AcquireLease)
    assert acquire.request.cluster_limit == 17


# requests that run no model


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


# the store fails


def test_without_a_store_a_closed_policy_refuses(policy: Policy, signals: Any) -> None:
    exchange = Exchange(policy, signals)
    start(exchange)

    respond, decision = refusal_of(exchange.receive(StoreFailed(), 0.25))

    assert (respond.status, respond.headers["retry-after"], decision.reason) == (503, "1", "store_unavailable")


@pytest.mark.parametrize("received", [headers(), headers(path="/metrics")])
def test_without_a_store_an_open_policy_admits_and_has_nothing_to_release(
    policy: Policy, signals: Any, received: HeadersReceived
) -> None:
    exchange = Exchange(replace(policy, on_store_failure=OnStoreFailure.OPEN), signals)
    if not isinstance(exchange.receive(received, 0.0)[0], AcquireLease):
        exchange.receive(body(), 0.001)

    [forward, _] = exchange.receive(StoreFailed(), 0.25)

    assert isinstance(forward, Forward)
    assert exchange.receive(StreamEnded(), 1.0) == []


@pytest.mark.parametrize(
    ("on_store_failure", "outlasts"),
    [(OnStoreFailure.CLOSED, True), (OnStoreFailure.LOCAL, True), (OnStoreFailure.OPEN, False)],
)
def test_who_waits_goes_on_without_a_store_where_the_policy_is_open(
    on_store_failure: OnStoreFailure, outlasts: bool, policy: Policy, signals: Any
) -> None:
    exchange = Exchange(replace(policy, on_store_failure=on_store_failure), signals)
    start(exchange)

    [join] = exchange.receive(LeaseRefused(Scope.CLUSTER, 1.0), 0.25)

    assert isinstance(join, JoinQueue)
    assert join.outlasts_store is outlasts
    if not outlasts:
        [_, report] = exchange.receive(StoreFailed(0.5), 0.75)
        assert isinstance(report, Report)
        assert (report.decision.verdict, report.decision.queue_wait_seconds) == (Verdict.QUEUE, 0.5)


# the ends


def test_a_last_body_message_delivered_twice_is_answered_and_otherwise_ignored(policy: Policy, signals: Any) -> None:
    exchange = Exchange(policy, signals)
    admit(exchange)

    assert exchange.receive(body(model="gpt-9"), 0.003) == [Continue(BODY)]
    assert exchange.receive(StreamEnded(), 1.0) == [ReleaseLease(LEASE)]


def test_a_last_body_message_delivered_twice_before_the_store_answers_asks_it_once(
    policy: Policy, signals: Any
) -> None:
    exchange = Exchange(policy, signals)
    assert [type(effect) for effect in start(exchange)] == [AcquireLease]

    assert exchange.receive(body(), 0.002) == [Continue(BODY)]
    assert [type(effect) for effect in exchange.receive(LeaseGranted(LEASE), 0.003)] == [Forward, Report]


@pytest.mark.parametrize("received", [headers("globex"), headers("nobody"), asking("/v1/models"), headers(path="/x")])
def test_headers_after_the_decision_change_nothing(policy: Policy, signals: Any, received: HeadersReceived) -> None:
    exchange = Exchange(policy, signals)
    admit(exchange)

    assert exchange.receive(received, 0.003) == [Continue(HEADERS)]
    assert exchange.receive(StreamEnded(), 1.0) == [ReleaseLease(LEASE)]


def test_a_body_without_headers_is_nobodys_and_does_not_pass(policy: Policy, signals: Any) -> None:
    respond, decision = refusal_of(Exchange(policy, signals).receive(body(), 0.0))

    assert (respond.status, decision.reason) == (503, "internal_error")


def test_a_slot_granted_after_the_end_goes_straight_back(policy: Policy, signals: Any) -> None:
    exchange = Exchange(policy, signals)
    start(exchange)

    assert exchange.receive(StreamEnded(), 0.002) == []
    assert exchange.receive(LeaseGranted(LEASE), 0.003) == [ReleaseLease(LEASE)]


@pytest.mark.parametrize("answer", [LeaseRefused(Scope.CLUSTER, 1.0), StoreFailed()])
def test_a_refusal_after_the_end_says_nothing(policy: Policy, signals: Any, answer: Event) -> None:
    exchange = Exchange(policy, signals)
    start(exchange)
    exchange.receive(StreamEnded(), 0.002)

    assert exchange.receive(answer, 0.003) == []


@pytest.mark.parametrize(("reason", "message"), [("shutting_down", "restarting"), ("internal_error", "not decide")])
def test_a_request_turned_away_is_refused_and_its_slot_goes_back_first(
    policy: Policy, signals: Any, reason: str, message: str
) -> None:
    exchange = Exchange(policy, signals)
    admit(exchange)

    [release, respond, report] = exchange.receive(TurnedAway(reason), 1.0)

    assert release == ReleaseLease(LEASE)
    assert isinstance(respond, Respond)
    assert (respond.status, respond.details) == (503, f"headgate_{reason}")
    assert message in json.loads(respond.body)["error"]["message"]
    assert isinstance(report, Report)
    assert exchange.receive(StreamEnded(), 2.0) == []


def test_a_request_whose_body_cannot_be_edited_gives_its_slot_back(policy: Policy, signals: Any) -> None:
    exchange = Exchange(policy, signals)
    exchange.receive(headers(), 0.0)
    exchange.receive(BodyReceived(b'{"x":[[]],"model":"assistant","prompt":"a","\xff":[[]]}', is_end=True), 0.001)

    [release, respond, report] = exchange.receive(LeaseGranted(LEASE), 0.002)

    assert release == ReleaseLease(LEASE)
    assert isinstance(respond, Respond)
    assert respond.status == 400
    assert isinstance(report, Report)
    assert exchange.receive(StreamEnded(), 2.0) == []


def test_a_request_keeps_the_policy_it_began_with(signals: Any, revise: Callable[..., Policy]) -> None:
    before, after = revise(), revise(clusters={"best": {"capacity": Capacity(requests=0)}})
    first, second = Exchange(before, signals), Exchange(after, signals)

    [one], [other] = start(first), start(second)

    assert isinstance(one, AcquireLease)
    assert isinstance(other, AcquireLease)
    assert (one.request.cluster_limit, other.request.cluster_limit) == (2, 0)


def test_the_region_is_known_to_routing_conditions(policy: Policy, signals: Any, revise: Callable[..., Policy]) -> None:
    route = policy.models["assistant"].routes[0]
    here = replace(route, cluster="tiny", when=policy.rules.compile('region == "eu-west"'))
    exchange = Exchange(revise(models={"assistant": {"routes": (here, route)}}), signals, region="eu-west")

    [acquire] = start(exchange)

    assert isinstance(acquire, AcquireLease)
    assert acquire.request.cluster == "tiny"


# any order of events

MESSAGES = st.sampled_from(
    [
        headers("acme"),
        headers("globex", CHAT),
        headers("hobby", "/metrics"),
        headers("nobody"),
        headers(is_end=True),
        HeadersReceived(headers().headers, is_end=False, is_buffered=True),
        asking("/v1/models"),
        asking("/v2/models/assistant/config"),
        body(),
        body(model="gpt-9"),
        BodyReceived(b"{", is_end=True),
        BodyReceived(b"part", is_end=False),
        OtherReceived(Phase.REQUEST_TRAILERS),
        OtherReceived(Phase.RESPONSE_TRAILERS),
    ]
)
ANSWERS = st.one_of(
    st.just("granted"),
    st.builds(
        LeaseRefused, st.sampled_from(Scope), st.just(1.0), st.sampled_from([None, "queue_full", "queue_timeout"])
    ),
    st.just(StoreFailed()),
)


@settings(deadline=None)
@given(messages=st.lists(MESSAGES, max_size=6), data=st.data(), is_turned_away=st.booleans())
def test_every_message_gets_one_reply_and_every_slot_goes_back_once(
    policy: Policy, idle_signals: Any, messages: list[Event], data: st.DataObject, is_turned_away: bool
) -> None:
    exchange = Exchange(policy, idle_signals)
    granted: list[Lease] = []
    released: list[Lease] = []

    def carry_out(effects: list[Effect]) -> list[Effect]:
        """What the shell does; the replies there were."""
        replies: list[Effect] = []
        for effect in effects:
            match effect:
                case AcquireLease() | JoinQueue():
                    answer = data.draw(ANSWERS)
                    if answer == "granted":
                        granted.append(Lease(len(granted), effect.request, 0.0))
                        answer = LeaseGranted(granted[-1])
                    replies += carry_out(exchange.receive(answer, 0.0))
                case ReleaseLease(lease):
                    released.append(lease)
                case Report():
                    pass
                case _:
                    replies.append(effect)
        return replies

    for message in messages:
        assert len(carry_out(exchange.receive(message, 0.0))) == 1
    if is_turned_away:
        [respond] = carry_out(exchange.receive(TurnedAway("shutting_down"), 0.0))
        assert isinstance(respond, Respond)
    assert carry_out(exchange.receive(StreamEnded(), 1.0)) == []
    assert sorted(lease.id for lease in released) == [lease.id for lease in granted]


# before the body


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
