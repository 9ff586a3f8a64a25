"""Requests for which there is no room now, or no store to ask: who waits, who runs smaller, who is told no."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from extproc.events import (
    AcquireLease,
    Forward,
    HeadersReceived,
    JoinQueue,
    LeaseGranted,
    LeaseRefused,
    ReleaseLease,
    Report,
    StoreFailed,
    StreamEnded,
    Verdict,
)
from extproc.exchange import Exchange
from headgate.policy.model import (
    Capacity,
    OnStoreFailure,
    Policy,
    Queue,
    Rung,
    TenantLimits,
)
from headgate.store import Scope
from headgate.transport import StatusCode
from tests.extproc.exchanges import (
    HELLO,
    HELLO_TOKENS,
    LEASE,
    body,
    headers,
    refusal_of,
    start,
)

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
