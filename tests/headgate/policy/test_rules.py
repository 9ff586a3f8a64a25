"""Routing conditions: what they may ask, and what becomes of one that is wrong."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate.policy.rules import VARIABLES, RuleEngine, RuleError

ENGINE = RuleEngine()
REQUEST: Mapping[str, object] = {
    "tenant": "acme",
    "tier": "premium",
    "model": "assistant",
    "protocol": "openai",
    "stream": True,
    "prompt_tokens": 9000,
    "prompt_bytes": 36000,
    "max_output_tokens": 100,
    "expected_output_tokens": 80,
    "tools": 0,
    "images": 2,
    "audio_seconds": 0,
    "operation": "chat",
    "service_tier": "flex",
    "messages": 3,
    "session": "s-1",
    "region": "eu",
}


@dataclass(frozen=True)
class Facts:
    """What a test says of a request; a cluster it does not know is a failure."""

    variables: Mapping[str, object] = field(default_factory=lambda: REQUEST)
    saturations: Mapping[str, float] = field(default_factory=lambda: {"standard": 0.9})

    def variable(self, name: str) -> object:
        return self.variables[name]

    def saturation(self, cluster: str) -> float:
        return self.saturations[cluster]

    def queue_depth(self, cluster: str) -> int:
        return {"standard": 7}[cluster]

    def header(self, name: str) -> str:
        return {"x-team": "search"}.get(name, "")


def facts(**changes: object) -> Facts:
    return Facts(REQUEST | changes)


def first_match(engine: RuleEngine, sources: Sequence[str | None], asked: Facts) -> int | None:
    rules = [None if source is None else engine.compile(source) for source in sources]
    return engine.first_match(engine.table(rules), asked)


def holds(source: str, **changes: object) -> bool:
    return first_match(RuleEngine(), [source], facts(**changes)) == 0


def test_the_facts_of_this_page_are_all_that_a_rule_may_ask_for() -> None:
    assert set(REQUEST) == set(VARIABLES)


@pytest.mark.parametrize(
    "source",
    [
        'tenant == "acme" && tier == "premium" && model == "assistant" && protocol == "openai"',
        "stream",
        "prompt_tokens > 8000 && prompt_bytes == 36000",
        "max_output_tokens + expected_output_tokens == 180",
        "tools == 0 && images == 2 && messages >= 3",
        'session == "s-1" && region == "eu"',
        'operation == "chat" && service_tier == "flex" && audio_seconds == 0',
        'tier in ["premium", "interactive"]',
        'tenant.startsWith("ac")',
        'saturation("standard") > 0.8',
        'queue_depth("standard") == 7',
        'header("x-team") == "search"',
        'header("X-Team") == "search"',
        "true // a comment",
    ],
)
def test_a_condition_that_is_true_holds(source: str) -> None:
    assert holds(source)


@pytest.mark.parametrize("source", ["prompt_tokens > 9000", 'tier == "Premium"', "!stream", "false"])
def test_a_condition_that_is_false_does_not_hold(source: str) -> None:
    assert not holds(source)


@pytest.mark.parametrize(
    "source",
    [
        "1 / tools == 1",
        "[1][images] == 1",
        'tier.matches("[")',
        'timestamp("soon") < timestamp("later")',
        "9223372036854775807 + messages > 0",
    ],
)
def test_a_condition_that_fails_while_it_is_asked_does_not_hold(source: str) -> None:
    assert not holds(source)


def test_a_number_no_integer_of_the_language_holds_makes_the_condition_false() -> None:
    assert not holds("prompt_tokens > 0", prompt_tokens=2**70)


def test_the_first_rule_that_holds_is_taken() -> None:
    assert first_match(ENGINE, ["tools > 0", "images > 0", "messages > 0"], facts()) == 1


def test_no_rule_at_all_always_holds() -> None:
    assert first_match(ENGINE, ["false", None], facts()) == 1
    assert first_match(ENGINE, [None, "true"], facts()) == 0
    assert first_match(ENGINE, ["false"], facts()) is None
    assert first_match(ENGINE, [], facts()) is None


def test_a_rule_that_fails_leaves_the_others_as_they_are() -> None:
    failing = "1 / tools == 1"

    assert first_match(ENGINE, ["false", failing, "images > 0", None], facts()) == 2
    assert first_match(ENGINE, ["images > 0", failing], facts()) == 0
    assert first_match(ENGINE, [failing, "false", None], facts()) == 2


@pytest.mark.parametrize("count", [29, 40, 500])
def test_however_many_rules_there_are_the_first_that_holds_is_taken(count: int) -> None:
    rules = [f"messages == {number} // the rule {number}" for number in range(count)]

    assert first_match(ENGINE, rules, facts(messages=count - 1)) == count - 1
    assert first_match(ENGINE, [*rules, None], facts(messages=count)) == count


@given(st.lists(st.sampled_from(["true", "false", "1 / tools == 1", "stream", "tools > 0", "x"]), max_size=6))
def test_all_rules_in_one_go_are_as_one_after_another(sources: list[str]) -> None:
    rules = [None if source == "x" else source for source in sources]
    alone = [source is None or holds(source) for source in rules]

    assert first_match(ENGINE, rules, facts()) == (alone.index(True) if True in alone else None)


def test_an_engine_asks_each_request_for_its_own_facts() -> None:
    table = ENGINE.table([ENGINE.compile('saturation("standard") > 0.8 && tenant == "acme"')])
    idle = Facts(saturations={"standard": 0.1})

    found = [ENGINE.first_match(table, asked) for asked in (facts(), idle, facts(tenant="globex"), facts())]

    assert found == [0, None, None, 0]


ATOMS = [
    "prompt_tokens > 2",
    "prompt_tokens == 3",
    "(prompt_tokens) != 1",
    "-prompt_tokens < -2",
    "4 <= prompt_tokens",
    "prompt_tokens < 2 == stream",
    "prompt_tokens * tools > 3",
    "prompt_tokens > tools",
    "2 // (\n * prompt_tokens > 5",
    "prompt_tokens // \n + 1 > 3",
    "1 / (tools - 1) == 1",
    "tools >= 1",
    'tier == "premium"',
    "stream",
    'saturation("standard") > 0.5',
    "saturation( 'standard' ) >= 0.25",
    'saturation("standard") * 2.0 > 1.5',
    'header("X-Team") == "search"',
    "saturation(tier) > 0.5",
]
CONDITIONS = st.recursive(
    st.sampled_from(ATOMS),
    lambda inner: st.one_of(
        st.tuples(inner, st.sampled_from(["&&", "||"]), inner).map("\n ".join),
        inner.map(lambda one: f"!({one}\n)"),
        st.tuples(inner, inner, inner).map(lambda three: "({}\n) ? {}\n : {}\n".format(*three)),
    ),
    max_leaves=4,
)
ASKED = st.builds(
    lambda prompt_tokens, tools, tier, stream, saturation: Facts(
        REQUEST | {"prompt_tokens": prompt_tokens, "tools": tools, "tier": tier, "stream": stream},
        {"standard": saturation, "premium": saturation, "batch": 0.0},
    ),
    st.integers(0, 5),
    st.integers(0, 3),
    st.sampled_from(["premium", "batch"]),
    st.booleans(),
    st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0]),
)


@given(st.lists(CONDITIONS, min_size=1, max_size=3), st.lists(ASKED, min_size=2, max_size=8))
def test_a_table_that_was_asked_before_answers_like_a_new_one(sources: list[str], asked: list[Facts]) -> None:
    rules = [ENGINE.compile(source) for source in sources]
    table = ENGINE.table(rules)

    for each in asked:
        assert ENGINE.first_match(table, each) == ENGINE.first_match(ENGINE.table(rules), each)


def test_requests_a_table_cannot_tell_apart_are_looked_at_once() -> None:
    sources = ['tier == "premium" && prompt_tokens > 8000', 'saturation("standard") > 0.8']
    table = ENGINE.table([ENGINE.compile(source) for source in sources])
    for prompt_tokens in range(7000, 9001, 10):
        for saturation in (0.1, 0.5, 0.7, 0.9):
            asked = Facts(REQUEST | {"prompt_tokens": prompt_tokens}, {"standard": saturation})
            expected = 0 if prompt_tokens > 8000 else 1 if saturation > 0.8 else None
            assert ENGINE.first_match(table, asked) == expected

    # Below, at and above the one number; below and above the other, which nobody hit.
    assert len(table.answers) == 3 * 2


def test_a_table_does_not_remember_for_ever() -> None:
    table = ENGINE.table([ENGINE.compile("prompt_tokens * 2 > 100")])

    for prompt_tokens in range(10_000):
        assert ENGINE.first_match(table, facts(prompt_tokens=prompt_tokens)) == (0 if prompt_tokens > 50 else None)

    assert 0 < len(table.answers) <= 4096


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("prompt_tokens", "is int, has to be true or false"),
        ('"text"', "is string, has to be true or false"),
        ("dyn(true)", "is dyn, has to be true or false"),
        ("teir == 1", "column 1: undeclared reference to 'teir'\n | teir == 1\n | ^"),
        (
            "tier == 1",
            "column 6: found no matching overload for '_==_' applied to '(string, int)'\n | tier == 1\n | .....^",
        ),
        (
            "saturation(standard) > 0.8",
            "column 12: undeclared reference to 'standard'\n | saturation(standard) > 0.8\n | ...........^",
        ),
        ("[" * 40, "Expression recursion limit exceeded. limit: 32"),
    ],
)
def test_what_is_no_condition_is_refused_with_the_place(source: str, message: str) -> None:
    with pytest.raises(RuleError) as caught:
        RuleEngine().compile(source)

    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("source", "clusters"),
    [
        ("stream", []),
        ('saturation("best") > 0.5 || queue_depth("fast") > 3', ["best", "fast"]),
        ("saturation( 'best' ) > 0.5", ["best"]),
        ("saturation ('best') > 0.5", ["best"]),
        ("saturation(tenant) > 0.5", []),
    ],
)
def test_a_rule_knows_the_clusters_it_names(source: str, clusters: list[str]) -> None:
    assert RuleEngine().compile(source).clusters() == clusters


SIGNS = "[ ] ( ) { } == && || ! - < + / ? : . , in size matches saturation header true null 1 2.5 'x'"
WORDS = st.sampled_from([*VARIABLES, *SIGNS.split()])


@given(st.lists(WORDS, max_size=12).map(" ".join) | st.text(max_size=30))
def test_no_text_raises_anything_but_a_rule_error_and_what_compiles_can_be_asked(source: str) -> None:
    try:
        rule = ENGINE.compile(source)
    except RuleError:
        return

    assert ENGINE.first_match(ENGINE.table([rule]), facts()) in (0, None)


@pytest.mark.parametrize(
    ("source", "sizes"),
    [
        ("prompt_tokens > 8000", {8000}),
        ("4000 <= prompt_tokens && prompt_tokens < 16000 && saturation('a1') > 0.8", {4000, 16000}),
        ("images > 3", set()),
        ("prompt_tokens > max_output_tokens", set()),
    ],
)
def test_the_prompt_sizes_of_a_rule_are_the_numbers_it_may_compare_with(source: str, sizes: set[int]) -> None:
    assert RuleEngine().compile(source).prompt_sizes == sizes
