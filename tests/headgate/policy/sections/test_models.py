"""Names product teams use and their routes, and what is said of wrong ones."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from headgate.policy.model import Policy

Accepted = Callable[[str, str], Policy]
Refused = Callable[[str, str], list[str]]

ROUTE = "      - {cluster: big}"


def test_routes_keep_their_order_and_what_they_say(accepted: Accepted) -> None:
    policy = accepted(
        ROUTE,
        """\
      - {when: 'tier == "gold"', cluster: big, max_output_tokens: 800, reason: gold_first}
      - {cluster: big}
    degrade: [big]
    tokenizer: tokenizers/llama.json""",
    )

    model = policy.models["chat"]
    assert model.tokenizer == "tokenizers/llama.json"
    first, last = model.routes
    assert first.when is not None
    assert (first.when.source, first.cluster, first.max_output_tokens, first.reason) == (
        'tier == "gold"',
        "big",
        800,
        "gold_first",
    )
    assert (last.when, last.cluster, last.max_output_tokens, last.reason) == (None, "big", None, None)
    assert model.degrade == ("big",)


@pytest.mark.parametrize(
    ("routes", "expected"),
    [
        ("      []", ["policy.yaml:10 models.chat.routes: names no route"]),
        ("      big", ["policy.yaml:11 models.chat.routes: has to be a list, not 'big'"]),
        ("      - big", ["policy.yaml:11 models.chat.routes[0]: has to be a mapping, not 'big'"]),
        ("      - {}", ["policy.yaml:11 models.chat.routes[0]: 'cluster' is missing"]),
        ("      - {cluster: huge}", ["policy.yaml:11 models.chat.routes[0].cluster: no cluster named 'huge'"]),
        (
            "      - {cluster: big}\n      - {cluster: huge}",
            ["policy.yaml:12 models.chat.routes[1].cluster: no cluster named 'huge'"],
        ),
        (
            "      - {cluster: big, max_output_tokens: 0}",
            ["policy.yaml:11 models.chat.routes[0].max_output_tokens: has to be at least 1, not '0'"],
        ),
        (
            "      - {cluster: big, reason: Too Full}",
            ["policy.yaml:11 models.chat.routes[0].reason: has to be lower_case_words, not 'Too Full'"],
        ),
        (
            "      - {cluster: big}\n    degrade: [small]",
            ["policy.yaml:12 models.chat.degrade[0]: no cluster named 'small'"],
        ),
        (
            "      - {cluster: big}\n    degrade: big",
            ["policy.yaml:12 models.chat.degrade: has to be a list, not 'big'"],
        ),
        (
            "      - {when: '', cluster: big}",
            ["policy.yaml:11 models.chat.routes[0].when: has to be non-empty text, not ''"],
        ),
        (
            "      - {when: prompt_tokens, cluster: big}",
            ["policy.yaml:11 models.chat.routes[0].when: is not a condition: is int, has to be true or false"],
        ),
        (
            "      - {when: teir == 'gold', cluster: big}",
            [
                (
                    "policy.yaml:11 models.chat.routes[0].when: is not a condition: column 1: "
                    "undeclared reference to 'teir'\n | teir == 'gold'\n | ^"
                )
            ],
        ),
        (
            "      - {when: 'tier == 1', cluster: big}",
            [
                (
                    "policy.yaml:11 models.chat.routes[0].when: is not a condition: column 6: "
                    "found no matching overload for '_==_' applied to '(string, int)'\n | tier == 1\n | .....^"
                )
            ],
        ),
        (
            "      - {when: 'saturation(\"huge\") > 0.8', cluster: big}",
            ["policy.yaml:11 models.chat.routes[0].when: no cluster named 'huge'"],
        ),
        (
            "      - {when: 'queue_depth (\"huge\") > 8', cluster: big}",
            ["policy.yaml:11 models.chat.routes[0].when: no cluster named 'huge'"],
        ),
        (
            f"      - {{when: '{'(' * 50}true{')' * 50}', cluster: big}}",
            [
                (
                    "policy.yaml:11 models.chat.routes[0].when: is not a condition: "
                    "Expression recursion limit exceeded. limit: 32"
                )
            ],
        ),
    ],
)
def test_a_wrong_route_is_named(routes: str, expected: list[str], refused: Refused) -> None:
    assert refused(ROUTE, routes) == expected


def test_a_model_without_routes_is_named(refused: Refused) -> None:
    assert refused("    routes:\n      - {cluster: big}", "    {}") == [
        "policy.yaml:9 models.chat: 'routes' is missing"
    ]


def test_a_model_prices_its_images_and_audio_and_a_route_its_decoding(accepted: Accepted) -> None:
    policy = accepted(
        ROUTE,
        """\
      - {cluster: big, overrides: {temperature: 0, stop: ["###"], seed: 7, reasoning_effort: low}}
      - {cluster: big}
    image_tokens: 256
    audio_tokens_per_second: 12.5""",
    )

    model = policy.models["chat"]
    assert (model.image_tokens, model.audio_tokens_per_second) == (256, 12.5)
    assert model.routes[0].overrides == {"temperature": 0, "stop": ("###",), "seed": 7, "reasoning_effort": "low"}
    assert model.routes[1].overrides == {}


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        ("{temperature: 2.5}", "overrides.temperature: has to be at most 2, not '2.5'"),
        ("{temperature: hot}", "overrides.temperature: has to be a number, not 'hot'"),
        ("{top_p: 0}", "overrides.top_p: has to be at least 1e-06, not '0'"),
        ("{top_k: 1.5}", "overrides.top_k: has to be a whole number, not '1.5'"),
        ("{seed: true}", "overrides.seed: has to be a whole number, not 'true'"),
        ("{stop: []}", "overrides.stop: names no text"),
        ("{stop: x}", "overrides.stop: has to be a list, not 'x'"),
        (
            "{reasoning_effort: much}",
            "overrides.reasoning_effort: has to be one of none, minimal, low, medium, high, xhigh, max, not 'much'",
        ),
        ("{temprature: 1}", "overrides.temprature: unknown key; did you mean 'temperature'?"),
        ("{max_tokens: 1}", "overrides.max_tokens: unknown key"),
    ],
)
def test_a_wrong_override_is_named(overrides: str, expected: str, refused: Refused) -> None:
    assert refused(ROUTE, f"      - {{cluster: big, overrides: {overrides}}}") == [
        f"policy.yaml:11 models.chat.routes[0].{expected}"
    ]
