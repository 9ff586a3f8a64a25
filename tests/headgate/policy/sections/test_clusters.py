"""Where models run: frontends, capacity and price, and what is said of wrong ones."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from headgate.policy.model import (
    Affinity,
    Backend,
    Capacity,
    Cluster,
    Frontend,
    MetricsAddress,
    Policy,
    Price,
    Protocol,
)

Accepted = Callable[[str, str], Policy]
Refused = Callable[[str, str], list[str]]

BIG = '  big: {protocol: openai, model: llama, endpoints: ["127.0.0.1:8000"]}'
METRICS_FORMS = "host:port, host:port/path or grpc://host:port"
IN_PLACE = "protocol: openai, model: llama, endpoints: ['127.0.0.1:8000']"
LISTED = "{protocol: openai, model: llama, endpoints: ['127.0.0.1:8000']}"


def test_a_cluster_that_says_everything_is_read_in_full(accepted: Accepted) -> None:
    policy = accepted(
        BIG,
        """\
  big:
    protocol: triton
    model: ensemble
    endpoints: [triton:8000, "[::1]:8000"]
    capacity: {requests: 32, tokens: 400_000}
    metrics: triton:8002
    price: {prompt: 0.5, cached_prompt: 0.1, output: 1.5}""",
    )

    frontend = Frontend(
        protocol=Protocol.TRITON, model="ensemble", endpoints=("triton:8000", "[::1]:8000"), envoy_cluster="big"
    )
    assert policy.clusters["big"] == Cluster(
        name="big",
        frontends={Protocol.TRITON: frontend},
        capacity=Capacity(requests=32, tokens=400_000),
        metrics=(MetricsAddress("triton:8002"),),
        price=Price(prompt=0.5, cached_prompt=0.1, output=1.5),
    )


def test_a_cluster_that_says_only_where_it_is_has_no_limits_and_costs_nothing(accepted: Accepted) -> None:
    cluster = accepted(BIG, BIG).clusters["big"]

    assert cluster.capacity == Capacity(requests=None, tokens=None, auto=False)
    assert cluster.price == Price(prompt=0.0, output=0.0)
    assert cluster.metrics == ()


def test_a_cluster_may_name_several_places_that_tell_how_it_is(accepted: Accepted) -> None:
    places = "[triton:8002, 'grpc://[::1]:8001', nim:8000/v1/metrics, triton:8002]"

    cluster = accepted(BIG, f"  big: {{{IN_PLACE}, metrics: {places}}}").clusters["big"]

    assert cluster.metrics == (
        MetricsAddress("triton:8002"),
        MetricsAddress("[::1]:8001", is_grpc=True),
        MetricsAddress("nim:8000", "/v1/metrics"),
    )
    assert [str(place) for place in cluster.metrics] == ["triton:8002", "grpc://[::1]:8001", "nim:8000/v1/metrics"]


def test_the_capacity_may_be_left_to_headgate(accepted: Accepted) -> None:
    assert accepted(BIG, f"  big: {{{IN_PLACE}, capacity: auto}}").clusters["big"].capacity == Capacity(auto=True)


def test_the_request_limit_alone_may_be_left_to_headgate(accepted: Accepted) -> None:
    capacity = "{requests: auto, tokens: 400_000, prompt_tokens_per_minute: 600_000}"

    cluster = accepted(BIG, f"  big: {{{IN_PLACE}, capacity: {capacity}}}").clusters["big"]

    assert cluster.capacity == Capacity(tokens=400_000, prompt_tokens_per_minute=600_000, auto=True)


def test_a_cluster_with_two_apis_is_two_clusters_to_envoy(accepted: Accepted) -> None:
    policy = accepted(
        BIG,
        """\
  big:
    frontends:
      - {protocol: triton, model: best, endpoints: ["127.0.0.1:8000"]}
      - {protocol: openai, model: llama, endpoints: ["127.0.0.1:8010"]}""",
    )

    frontends = policy.clusters["big"].frontends
    assert {p: f.envoy_cluster for p, f in frontends.items()} == {"triton": "big.triton", "openai": "big.openai"}


def test_a_single_listed_frontend_keeps_the_name_of_its_cluster(accepted: Accepted) -> None:
    policy = accepted(BIG, f"  big:\n    frontends:\n      - {LISTED}")

    assert policy.clusters["big"].frontends[Protocol.OPENAI].envoy_cluster == "big"


@pytest.mark.parametrize(
    ("cluster", "expected"),
    [
        (
            "{}",
            [
                "policy.yaml:13 clusters.big: 'endpoints' is missing",
                "policy.yaml:13 clusters.big: 'model' is missing",
                "policy.yaml:13 clusters.big: 'protocol' is missing",
            ],
        ),
        ("llama", ["policy.yaml:13 clusters.big: has to be a mapping, not 'llama'"]),
        (
            "{protocol: grpc, model: llama, endpoints: ['127.0.0.1:8000']}",
            ["policy.yaml:13 clusters.big.protocol: has to be one of openai, triton, not 'grpc'"],
        ),
        (
            "{protocol: openai, model: '', endpoints: ['127.0.0.1:8000']}",
            ["policy.yaml:13 clusters.big.model: has to be non-empty text, not ''"],
        ),
        (
            "{protocol: openai, model: llama, endpoints: []}",
            ["policy.yaml:13 clusters.big.endpoints: names no endpoint"],
        ),
        (
            "{protocol: openai, model: llama, endpoints: '127.0.0.1:8000'}",
            ["policy.yaml:13 clusters.big.endpoints: has to be a list, not '127.0.0.1:8000'"],
        ),
        (
            "{protocol: openai, model: llama, endpoints: ['http://host:8000']}",
            ["policy.yaml:13 clusters.big.endpoints[0]: has to be host:port, not 'http://host:8000'"],
        ),
        (
            "{protocol: openai, model: llama, endpoints: [host]}",
            ["policy.yaml:13 clusters.big.endpoints[0]: has to be host:port, not 'host'"],
        ),
        (
            "{protocol: openai, model: llama, endpoints: ['host:70000']}",
            ["policy.yaml:13 clusters.big.endpoints[0]: has to be host:port, not 'host:70000'"],
        ),
        (
            f"{{{IN_PLACE}, metrics: nowhere}}",
            [f"policy.yaml:13 clusters.big.metrics: has to be {METRICS_FORMS}, not 'nowhere'"],
        ),
        (
            f"{{{IN_PLACE}, metrics: [triton:8002, 'grpc://triton:70000']}}",
            [f"policy.yaml:13 clusters.big.metrics[1]: has to be {METRICS_FORMS}, not 'grpc://triton:70000'"],
        ),
        (
            f"{{{IN_PLACE}, capacity: 32}}",
            ["policy.yaml:13 clusters.big.capacity: has to be 'auto' or a mapping of requests and tokens, not '32'"],
        ),
        (
            f"{{{IN_PLACE}, capacity: {{requests: automatic}}}}",
            ["policy.yaml:13 clusters.big.capacity.requests: has to be a whole number, not 'automatic'"],
        ),
        (
            f"{{{IN_PLACE}, capacity: {{prompt_tokens_per_minute: 0}}}}",
            ["policy.yaml:13 clusters.big.capacity.prompt_tokens_per_minute: has to be at least 1, not '0'"],
        ),
        (
            f"{{{IN_PLACE}, capacity: {{request: 32}}}}",
            ["policy.yaml:13 clusters.big.capacity.request: unknown key; did you mean 'requests'?"],
        ),
        (
            f"{{{IN_PLACE}, capacity: {{requests: -1}}}}",
            ["policy.yaml:13 clusters.big.capacity.requests: has to be at least 0, not '-1'"],
        ),
        (
            f"{{{IN_PLACE}, price: {{prompt: free}}}}",
            ["policy.yaml:13 clusters.big.price.prompt: has to be a number, not 'free'"],
        ),
        (
            f"{{{IN_PLACE}, price: {{output: -1}}}}",
            ["policy.yaml:13 clusters.big.price.output: has to be at least 0, not '-1'"],
        ),
        (
            f"{{protocol: openai, frontends: [{LISTED}]}}",
            ["policy.yaml:13 clusters.big.protocol: stands in each of the frontends, not beside them"],
        ),
        ("{frontends: []}", ["policy.yaml:13 clusters.big.frontends: names no frontend"]),
        (
            "{frontends: [{protocol: openai, model: llama}]}",
            ["policy.yaml:13 clusters.big.frontends[0]: 'endpoints' is missing"],
        ),
        (
            f"\n    frontends:\n      - {LISTED}\n      - {LISTED}",
            ["policy.yaml:16 clusters.big.frontends[1]: the cluster has a frontend for openai already"],
        ),
        (
            f"{{{IN_PLACE}, grpc_endpoints: ['127.0.0.1:8001']}}",
            ["policy.yaml:13 clusters.big.grpc_endpoints: belongs to a frontend of protocol triton"],
        ),
        (
            f"{{{IN_PLACE}, affinity: sometimes}}",
            ["policy.yaml:13 clusters.big.affinity: has to be one of off, session, prefix, not 'sometimes'"],
        ),
        (
            f"\n    frontends:\n      - {LISTED}\n      - {{protocol: grpc, model: llama, endpoints: [a:1]}}",
            ["policy.yaml:16 clusters.big.frontends[1].protocol: has to be one of openai, triton, not 'grpc'"],
        ),
    ],
)
def test_a_wrong_cluster_is_named(cluster: str, expected: list[str], refused: Refused) -> None:
    assert refused(BIG, f"  big: {cluster}") == expected


def test_a_cluster_name_is_held_to_what_envoy_and_the_metrics_take(refused: Refused) -> None:
    assert refused(BIG, f"{BIG}\n  big.gpu: {LISTED}") == [
        (
            "policy.yaml:14 clusters.big.gpu: cannot be a name: up to 63 letters, digits, - and _, "
            "the first a letter or a digit"
        )
    ]


TRITON = "protocol: triton, model: m, endpoints: ['triton:8000'], grpc_endpoints: ['triton:8001', 'triton2:8001']"


def test_a_tritons_grpc_is_a_cluster_of_its_own_to_envoy(accepted: Accepted) -> None:
    cluster = accepted(BIG, f"  big: {{{TRITON}}}").clusters["big"]

    grpc = Protocol.KSERVE_GRPC
    assert cluster.frontends[Protocol.TRITON].envoy_cluster == "big"
    assert cluster.frontends[grpc] == Frontend(
        protocol=grpc, model="m", endpoints=("triton:8001", "triton2:8001"), envoy_cluster="big.kserve_grpc"
    )


def test_a_listed_frontend_may_have_grpc_as_well(accepted: Accepted) -> None:
    frontends = accepted(BIG, f"  big: {{frontends: [{{{TRITON}}}, {LISTED}]}}").clusters["big"].frontends

    assert {protocol: frontend.envoy_cluster for protocol, frontend in frontends.items()} == {
        Protocol.TRITON: "big.triton",
        Protocol.OPENAI: "big.openai",
        Protocol.KSERVE_GRPC: "big.kserve_grpc",
    }


@pytest.mark.parametrize("affinity", Affinity)
def test_a_cluster_may_keep_sessions_or_prefixes_together(accepted: Accepted, affinity: Affinity) -> None:
    assert accepted(BIG, f"  big: {{{IN_PLACE}, affinity: {affinity}}}").clusters["big"].affinity is affinity
    assert accepted(BIG, BIG).clusters["big"].affinity is Affinity.OFF


def test_a_cluster_says_what_runs_there_and_what_it_can_be_asked_for(accepted: Accepted) -> None:
    policy = accepted(
        BIG,
        f"  big: {{{IN_PLACE}, operations: [messages, chat], backend: vllm, send_priority: true, ask_for_usage: true}}",
    )

    cluster = policy.clusters["big"]
    assert (cluster.backend, cluster.sends_priority, cluster.asks_for_usage) == (Backend.VLLM, True, True)
    frontend = cluster.frontends[Protocol.OPENAI]
    assert frontend.operations == {"messages", "chat"}
    assert cluster.frontend_for(Protocol.ANTHROPIC, "messages") is frontend
    assert cluster.frontend_for(Protocol.OPENAI, "chat") is frontend
    assert cluster.frontend_for(Protocol.OPENAI, "embeddings") is None
    assert cluster.frontend_for(Protocol.TRITON, "generate") is None


def test_without_a_word_a_server_of_openais_api_chats_and_completes(accepted: Accepted) -> None:
    cluster = accepted(BIG, BIG).clusters["big"]

    assert cluster.frontends[Protocol.OPENAI].operations == {"chat", "text_completion"}
    assert (cluster.backend, cluster.sends_priority, cluster.asks_for_usage) == (None, False, False)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ("operations: []", "operations: names no operation"),
        (
            "operations: [speak]",
            "operations[0]: has to be one of chat, text_completion, embeddings, responses, messages, not 'speak'",
        ),
        ("backend: sglang", "backend: has to be one of trtllm, vllm, triton, not 'sglang'"),
        (
            "send_priority: true",
            "send_priority: needs a backend, which says how it is sent: trtllm or vllm or triton",
        ),
        (
            "backend: triton, send_priority: true",
            "send_priority: needs the priority_levels that the model's scheduler has",
        ),
        ("backend: vllm, priority_levels: 3", "priority_levels: belongs to backend: triton"),
        ("priority_levels: 3", "priority_levels: belongs to backend: triton"),
        ("backend: triton, priority_levels: 0", "priority_levels: has to be at least 1, not '0'"),
        ("ask_for_usage: please", "ask_for_usage: has to be true or false, not 'please'"),
    ],
)
def test_what_a_cluster_cannot_be_is_named(fields: str, expected: str, refused: Refused) -> None:
    assert refused(BIG, f"  big: {{{IN_PLACE}, {fields}}}") == [f"policy.yaml:13 clusters.big.{expected}"]


def test_a_tritons_scheduler_has_priority_levels(accepted: Accepted) -> None:
    fields = f"{IN_PLACE}, backend: triton, send_priority: true, priority_levels: 3"

    cluster = accepted(BIG, f"  big: {{{fields}}}").clusters["big"]

    assert (cluster.backend, cluster.sends_priority, cluster.priority_levels) == (Backend.TRITON, True, 3)


def test_a_triton_that_is_sent_no_priority_needs_no_levels(accepted: Accepted) -> None:
    cluster = accepted(BIG, f"  big: {{{IN_PLACE}, backend: triton, send_priority: false}}").clusters["big"]

    assert (cluster.sends_priority, cluster.priority_levels) == (False, None)


def test_a_triton_has_no_operations_of_openais(refused: Refused) -> None:
    fields = "protocol: triton, model: m, endpoints: ['h:1'], operations: [chat]"

    assert refused(BIG, f"  big: {{{fields}}}") == [
        "policy.yaml:13 clusters.big.operations: is only for the protocol openai"
    ]
