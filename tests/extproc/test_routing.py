"""Where a request runs: the first route that holds and speaks its protocol, what it is capped to, what it costs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from extproc.headers import Headers
from extproc.identity import Identity
from extproc.inspection.request import InferenceRequest, Prompt
from extproc.routing import Destination, NoDestination, capped_output_tokens, degraded_routes, find_route
from headgate.policy.model import OutputTokens, Policy, Protocol, Route

NO_HEADERS = Headers(())


def asking(**fields: Any) -> InferenceRequest:
    return InferenceRequest(**{"protocol": Protocol.OPENAI, "model": "assistant", "prompt_tokens": 100} | fields)


def as_tenant(policy: Policy, name: str) -> Identity:
    tenant = policy.tenants[name]
    return Identity(tenant, policy.tiers[tenant.tier])


def route(
    policy: Policy, signals: Any, tenant: str, request: InferenceRequest, headers: Headers = NO_HEADERS
) -> Destination:
    found = find_route(policy, as_tenant(policy, tenant), request, headers, signals, "eu-west")
    assert isinstance(found, Destination)
    return found


# which route


def test_the_first_route_whose_condition_holds_is_taken(policy: Policy, signals: Any) -> None:
    premium = route(policy, signals, "acme", asking())
    interactive = route(policy, signals, "globex", asking())

    assert (premium.cluster.name, premium.reason) == ("best", "")
    assert (interactive.cluster.name, interactive.reason) == ("standard", "everyone")
    assert not premium.is_degraded
    assert not interactive.is_degraded


def test_a_route_to_a_cluster_that_does_not_speak_the_protocol_is_passed_over(policy: Policy, signals: Any) -> None:
    found = route(policy, signals, "globex", asking(protocol=Protocol.TRITON))

    assert (found.cluster.name, found.frontend.model, found.frontend.envoy_cluster) == (
        "fast",
        "assistant",
        "fast.triton",
    )


def test_a_cheaper_place_that_no_condition_chose_is_no_degradation(policy: Policy, signals: Any) -> None:
    found = route(policy, signals, "globex", asking(protocol=Protocol.TRITON))

    assert found.cluster.name in policy.models["assistant"].degrade
    assert not found.is_degraded


@pytest.mark.parametrize(("cluster", "is_degraded"), [("fast", True), ("tiny", True), ("best", False)])
def test_a_condition_that_sends_a_request_to_a_cheaper_place_degrades_it(
    policy: Policy, signals: Any, revise: Callable[..., Policy], cluster: str, is_degraded: bool
) -> None:
    when = policy.rules.compile('saturation("standard") > 0.8')
    routes = (Route(cluster=cluster, when=when, reason="standard_saturated"), Route(cluster="standard"))
    revised = revise(models={"assistant": {"routes": routes}})
    signals.saturations["standard"] = 0.9

    found = route(revised, signals, "globex", asking())

    assert (found.is_degraded, found.reason) == (is_degraded, "standard_saturated")


def test_a_model_no_cluster_serves_over_the_clients_api_has_no_destination(policy: Policy, signals: Any) -> None:
    found = find_route(policy, as_tenant(policy, "acme"), asking(model="sentiment"), NO_HEADERS, signals, "")

    assert found == NoDestination("protocol_not_served", "The model 'sentiment' is not served over the OpenAI API.")


def test_a_model_whose_conditions_all_fail_has_no_destination(
    policy: Policy, signals: Any, revise: Callable[..., Policy]
) -> None:
    never = Route(cluster="best", when=policy.rules.compile("false"))
    strict = revise(models={"assistant": {"routes": (never, never)}})

    found = find_route(strict, as_tenant(strict, "acme"), asking(), NO_HEADERS, signals, "")

    assert found == NoDestination("no_route", "No route of the model 'assistant' takes this request.")


@pytest.mark.parametrize(
    "condition",
    [
        'tenant == "acme"',
        'tier == "premium"',
        'model == "assistant"',
        'protocol == "openai"',
        "stream",
        "prompt_tokens == 9000",
        "prompt_bytes == 36000",
        "max_output_tokens == 700",
        "expected_output_tokens == 700",
        "tools == 2",
        "images == 1",
        "messages == 3",
        'session == "s-1"',
        'region == "eu-west"',
        'header("X-Canary") == "yes"',
        'header("x-absent") == ""',
        'saturation("standard") > 0.8',
        'saturation("fast") == 0.0',
        'queue_depth("standard") == 5',
    ],
)
def test_a_condition_may_ask_for_everything_known_of_the_request_and_the_clusters(
    policy: Policy, signals: Any, revise: Callable[..., Policy], condition: str
) -> None:
    signals.saturations["standard"] = 0.9
    signals.depths["standard"] = 5
    routes = (Route(cluster="tiny", when=policy.rules.compile(condition)), Route(cluster="best"))
    revised = revise(models={"assistant": {"routes": routes, "degrade": ()}})
    prompt = Prompt(size_bytes=36000, tools=2, images=1, messages=3)
    request = asking(stream=True, prompt=prompt, prompt_tokens=9000, max_output_tokens=700)

    found = route(revised, signals, "acme", request, Headers([("x-session-id", "s-1"), ("X-Canary", "yes")]))

    assert found.cluster.name == "tiny"


@pytest.mark.parametrize(
    "condition",
    [
        'tenant == "globex"',
        "max_output_tokens > 0",
        "expected_output_tokens != 256",
        "prompt_tokens / max_output_tokens > 1",
    ],
)
def test_a_condition_that_is_false_or_fails_does_not_hold(
    policy: Policy, signals: Any, revise: Callable[..., Policy], condition: str
) -> None:
    routes = (Route(cluster="tiny", when=policy.rules.compile(condition)), Route(cluster="best"))
    revised = revise(models={"assistant": {"routes": routes}})

    assert route(revised, signals, "acme", asking()).cluster.name == "best"


# caps and costs


@pytest.mark.parametrize(
    ("asked", "tier", "route_limit", "capped"),
    [
        (None, OutputTokens(), None, None),
        (50, OutputTokens(), None, 50),
        (None, OutputTokens(default=256), None, 256),
        (None, OutputTokens(max=400), None, 400),
        (None, OutputTokens(), 300, 300),
        (None, OutputTokens(default=256, max=400), 300, 256),
        (None, OutputTokens(default=256, max=400), 100, 100),
        (50, OutputTokens(default=256, max=400), 300, 50),
        (300, OutputTokens(default=256, max=400), 300, 300),
        (301, OutputTokens(default=256, max=400), 300, 300),
        (2**31 - 1, OutputTokens(max=400), None, 400),
        (400, OutputTokens(max=400), 500, 400),
    ],
)
def test_output_is_what_was_asked_for_under_the_tightest_cap(
    asked: int | None, tier: OutputTokens, route_limit: int | None, capped: int | None
) -> None:
    assert capped_output_tokens(asked, tier, route_limit) == capped


@pytest.mark.parametrize(
    ("tenant", "request_", "max_output_tokens", "charged_tokens"),
    [
        ("acme", asking(), 512, 612),
        ("acme", asking(max_output_tokens=50), 50, 150),
        ("acme", asking(max_output_tokens=5000), 1000, 1100),
        ("acme", asking(max_output_tokens=50, choices=3), 50, 250),
        ("globex", asking(), 256, 356),
        ("globex", asking(max_output_tokens=5000), 700, 800),
        ("globex", asking(max_output_tokens=5000, protocol=Protocol.TRITON), 300, 400),
        ("hobby", asking(), 400, 500),
    ],
)
def test_a_request_is_charged_its_prompt_and_its_capped_output(
    policy: Policy, signals: Any, tenant: str, request_: InferenceRequest, max_output_tokens: int, charged_tokens: int
) -> None:
    found = route(policy, signals, tenant, request_)

    assert (found.max_output_tokens, found.charged_tokens) == (max_output_tokens, charged_tokens)


def test_without_any_limit_a_request_is_charged_what_one_produces_on_average(
    signals: Any, revise: Callable[..., Policy]
) -> None:
    unlimited = revise(tiers={"interactive": {"output_tokens": OutputTokens()}})

    found = route(unlimited, signals, "globex", asking(choices=2))

    assert (found.max_output_tokens, found.charged_tokens) == (None, 100 + 2 * 256)


# cheaper places


def test_the_cheaper_places_come_in_the_order_the_model_names_them(policy: Policy, signals: Any) -> None:
    refused = route(policy, signals, "acme", asking(max_output_tokens=900))

    cheaper = degraded_routes(policy, as_tenant(policy, "acme"), asking(max_output_tokens=900), refused)

    # The limit of a route to the same cluster holds there too; a cluster without one is under the tier's.
    assert [(place.cluster.name, place.max_output_tokens) for place in cheaper] == [("fast", 300), ("tiny", 900)]
    assert all(place.is_degraded for place in cheaper)


def test_a_cheaper_place_speaks_the_clients_protocol(policy: Policy, signals: Any) -> None:
    request = asking(protocol=Protocol.TRITON)
    refused = route(policy, signals, "acme", request)

    cheaper = degraded_routes(policy, as_tenant(policy, "acme"), request, refused)

    assert [place.frontend.envoy_cluster for place in cheaper] == ["fast.triton"]


def test_the_place_that_refused_is_not_among_them(policy: Policy, signals: Any) -> None:
    request = asking(protocol=Protocol.TRITON)
    refused = route(policy, signals, "globex", request)

    assert refused.cluster.name == "fast"
    assert degraded_routes(policy, as_tenant(policy, "globex"), request, refused) == []
