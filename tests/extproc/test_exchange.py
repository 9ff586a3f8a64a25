"""Requests from their headers to the end of their stream, as transcripts: what comes in, what goes out."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any, get_args

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
from extproc.exchange import TAKE, Exchange
from headgate.policy.model import (
    Capacity,
    OutputTokens,
    Policy,
)
from headgate.store import Lease, LeaseRequest, Scope
from tests.extproc.exchanges import (
    BODY,
    CHAT,
    COMPLETIONS,
    HEADERS,
    HELLO,
    HELLO_TOKENS,
    LEASE,
    admit,
    asking,
    body,
    headers,
    refusal_of,
    start,
)

# admitted


@pytest.mark.parametrize("is_refused", [False, True], ids=["admitted", "refused"])
@pytest.mark.parametrize(
    ("path", "fields"),
    [
        (CHAT, {"messages": [{"role": "user", "content": HELLO}], "temperature": 0.5}),
        (COMPLETIONS, {"prompt": HELLO}),
    ],
)
def test_a_request_that_is_decided_on_keeps_nothing_of_its_body(
    policy: Policy, signals: Any, path: str, fields: dict[str, Any], is_refused: bool
) -> None:
    exchange = Exchange(policy, signals)
    data = json.dumps({"model": "assistant"} | fields).encode()
    held = sys.getrefcount(data)
    exchange.receive(headers(path=path), 0.0)
    exchange.receive(BodyReceived(data, is_end=True), 0.0)
    assert sys.getrefcount(data) > held

    exchange.receive(StoreFailed() if is_refused else LeaseGranted(LEASE), 0.0)

    assert exchange.is_decided
    assert sys.getrefcount(data) == held


def test_every_event_is_taken_by_somebody() -> None:
    assert set(TAKE) == set(get_args(Event))


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
