"""A prompt near a size that decides is counted before it is routed; whatever comes of it, one decision follows."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from extproc.events import (
    AcquireLease,
    BodyReceived,
    CountTokens,
    Effect,
    HeadersReceived,
    Report,
    Respond,
    StreamEnded,
    TokensCounted,
    TurnedAway,
)
from extproc.exchange import Exchange
from extproc.headers import Headers
from headgate.policy.model import Policy

HEADERS = HeadersReceived(
    Headers(
        [
            (":method", "POST"),
            (":path", "/v1/chat/completions"),
            ("x-request-id", "r-1"),
            ("authorization", "Bearer globex-key"),
        ]
    ),
    is_end=False,
)
PROMPT = "hello there " * 400


@pytest.fixture
def exchange(policy: Policy, signals: Any) -> Exchange:
    """Prompts above 1,000 tokens go to `best`; the estimate of PROMPT is a little less than 1,100."""
    model = policy.models["assistant"]
    long = replace(model.routes[0], when=policy.rules.compile("prompt_tokens > 1000"), cluster="best")
    able = replace(model, routes=(long, *model.routes[1:]), tokenizer="assistant.json")
    return Exchange(replace(policy, models={**policy.models, "assistant": able}), signals)


def ask(exchange: Exchange, prompt: str) -> list[Effect]:
    exchange.receive(HEADERS, 0.0)
    fields = {"model": "assistant", "messages": [{"role": "user", "content": prompt}], "max_tokens": 10}
    return exchange.receive(BodyReceived(json.dumps(fields).encode(), is_end=True), 0.0)


def asked_cluster(effects: list[Effect]) -> str | None:
    [acquire] = effects
    assert isinstance(acquire, AcquireLease)
    return acquire.request.cluster


def test_a_prompt_far_from_every_size_is_routed_by_its_estimate(exchange: Exchange) -> None:
    assert asked_cluster(ask(exchange, "Hello")) == "standard"


@pytest.mark.parametrize(("tokens", "cluster"), [(1200, "best"), (900, "standard"), (None, "best")])
def test_a_prompt_near_a_size_is_routed_by_its_count_or_else_by_its_estimate(
    exchange: Exchange, tokens: int | None, cluster: str
) -> None:
    [count] = ask(exchange, PROMPT)
    assert isinstance(count, CountTokens)
    assert (count.path, [bytes(text) for text in count.texts]) == ("assistant.json", [json.dumps(PROMPT).encode()])

    assert asked_cluster(exchange.receive(TokensCounted(tokens), 0.0)) == cluster


def test_a_client_that_leaves_while_its_prompt_is_counted_takes_no_slot(exchange: Exchange) -> None:
    ask(exchange, PROMPT)
    assert exchange.receive(StreamEnded(), 0.0) == []

    assert exchange.receive(TokensCounted(900), 0.0) == []


def test_a_request_turned_away_while_its_prompt_is_counted_is_answered_once(exchange: Exchange) -> None:
    ask(exchange, PROMPT)
    assert [type(effect) for effect in exchange.receive(TurnedAway("shutting_down"), 0.0)] == [Respond, Report]

    assert exchange.receive(TokensCounted(900), 0.0) == []
