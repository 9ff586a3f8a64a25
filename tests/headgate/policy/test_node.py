"""Reading the values of a document: what each reader takes, and what it says of what it does not."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from headgate.errors import PolicyError
from headgate.policy.document import parse_document
from headgate.policy.node import Node, optional_integer


class Colour(StrEnum):
    RED = "red"
    BLUE = "blue"


def node(text: str) -> Node:
    return parse_document(text.encode(), "policy.yaml")


def value(text: str) -> Node:
    """The value under the key `a`."""
    [(_, child)] = node(f"a: {text}").named()
    return child


def said(of: Node) -> list[str]:
    return [str(problem) for problem in of.problems]


READERS: dict[str, Callable[[Node], object]] = {
    "text": Node.text,
    "name": lambda n: n.text(r"[a-z]+", "a lower-case word"),
    "integer": Node.integer,
    "percent": lambda n: n.integer(1, 100),
    "number": Node.number,
    "share": lambda n: n.number(0, 1),
    "boolean": Node.boolean,
    "seconds": Node.seconds,
    "size": Node.size_bytes,
    "choice": lambda n: n.choice(Colour),
    "reference": lambda n: n.reference("tier", {"gold"}),
    "unchecked": lambda n: n.reference("tier", None),
    "elements": lambda n: [item.text() for item in n.elements()],
}


@pytest.mark.parametrize(
    ("reader", "text", "expected"),
    [
        ("text", "hello", "hello"),
        ("text", "'007'", "007"),
        ("text", "no", "no"),
        ("text", "1.10", "1.10"),
        ("name", "abc", "abc"),
        ("integer", "2_000_000", 2_000_000),
        ("integer", "0", 0),
        ("integer", "0x10", 16),
        ("percent", "100", 100),
        ("number", "3", 3.0),
        ("number", "0.5", 0.5),
        ("number", "1_000.5", 1000.5),
        ("share", "1", 1.0),
        ("boolean", "true", True),
        ("boolean", "off", False),
        ("seconds", "200ms", 0.2),
        ("seconds", "2s", 2.0),
        ("seconds", "1.5 m", 90.0),
        ("seconds", "1h", 3600.0),
        ("size", "1024", 1024),
        ("size", "64KiB", 65536),
        ("size", "8 MiB", 8 * 1024**2),
        ("size", "1_000B", 1000),
        ("size", "1.5KB", 1500),
        ("choice", "blue", Colour.BLUE),
        ("reference", "gold", "gold"),
        ("unchecked", "anything", "anything"),
        ("elements", "[x, y]", ["x", "y"]),
        ("elements", "[]", []),
    ],
)
def test_a_good_value_is_read_without_a_word(reader: str, text: str, expected: object) -> None:
    read = value(text)

    result = READERS[reader](read)

    assert result == expected
    assert type(result) is type(expected)
    assert said(read) == []


@pytest.mark.parametrize(
    ("reader", "text", "harmless", "message"),
    [
        ("text", "", "", "has to be non-empty text, not nothing"),
        ("text", "null", "", "has to be non-empty text, not nothing"),
        ("text", "''", "", "has to be non-empty text, not ''"),
        ("text", "[x]", "", "has to be non-empty text, not a list"),
        ("text", "{x: y}", "", "has to be non-empty text, not a mapping"),
        ("name", "ABC", "", "has to be a lower-case word, not 'ABC'"),
        ("name", '"abc\\n"', "", "has to be a lower-case word, not 'abc '"),
        ("name", "A" * 200, "", f"has to be a lower-case word, not '{'A' * 125}...'"),
        ("integer", "ten", 0, "has to be a whole number, not 'ten'"),
        ("integer", "1.5", 0, "has to be a whole number, not '1.5'"),
        ("integer", "true", 0, "has to be a whole number, not 'true'"),
        ("integer", "'5'", 0, "has to be a whole number, not '5'"),
        ("integer", "", 0, "has to be a whole number, not nothing"),
        ("integer", "-1", 0, "has to be at least 0, not '-1'"),
        ("integer", "!!int soon", 0, "has to be a whole number, not 'soon'"),
        ("integer", "!!int ''", 0, "has to be a whole number, not ''"),
        ("integer", "!!int [1]", 0, "has to be a whole number, not a list"),
        ("integer", "0x_", 0, "has to be a whole number, not '0x_'"),
        ("percent", "101", 1, "has to be at most 100, not '101'"),
        ("number", ".nan", 0, "has to be a number, not '.nan'"),
        ("number", ".inf", 0, "has to be a number, not '.inf'"),
        ("number", "1.0e+999", 0, "has to be a number, not '1.0e+999'"),
        ("number", "9" * 400, 0, f"has to be a number, not '{'9' * 125}...'"),
        ("number", "9" * 9000, 0, f"has to be a number, not '{'9' * 125}...'"),
        ("number", "false", 0, "has to be a number, not 'false'"),
        ("number", "!!float ''", 0, "has to be a number, not ''"),
        ("number", "-0.5", 0, "has to be at least 0, not '-0.5'"),
        ("share", "1.5", 0, "has to be at most 1, not '1.5'"),
        ("boolean", "maybe", False, "has to be true or false, not 'maybe'"),
        ("boolean", "1", False, "has to be true or false, not '1'"),
        ("boolean", "!!bool maybe", False, "has to be true or false, not 'maybe'"),
        ("seconds", "2", 0.0, "has to be a duration such as 200ms, 2s or 5m, not '2'"),
        ("seconds", "2 days", 0.0, "has to be a duration such as 200ms, 2s or 5m, not '2 days'"),
        ("seconds", "-2s", 0.0, "has to be a duration such as 200ms, 2s or 5m, not '-2s'"),
        ("seconds", "[2s]", 0.0, "has to be a duration such as 200ms, 2s or 5m, not a list"),
        ("size", "8MB/s", 0, "has to be a size such as 64KiB or 8MiB, not '8MB/s'"),
        ("size", "8mib", 0, "has to be a size such as 64KiB or 8MiB, not '8mib'"),
        ("size", "9" * 400, 0, f"has to be a size such as 64KiB or 8MiB, not '{'9' * 125}...'"),
        ("choice", "green", None, "has to be one of red, blue, not 'green'"),
        ("choice", "", None, "has to be one of red, blue, not nothing"),
        ("reference", "glod", "", "no tier named 'glod'"),
        ("reference", "", "", "has to be the name of a tier, not nothing"),
        ("elements", "x", [], "has to be a list, not 'x'"),
        ("elements", "", [], "has to be a list, not nothing"),
    ],
)
def test_a_wrong_value_is_named_and_read_as_a_harmless_one(
    reader: str, text: str, harmless: object, message: str
) -> None:
    read = value(text)

    assert READERS[reader](read) == harmless
    assert said(read) == [f"policy.yaml:1 a: {message}"]


def test_a_mapping_keeps_the_raw_text_of_its_keys() -> None:
    assert [name for name, _ in node("no: 1\n007: 2\n1.10: 3\nnull: 4\n").named()] == ["no", "007", "1.10", "null"]


def test_a_key_that_stands_twice_is_reported_where_it_stands_again_and_read_once() -> None:
    root = node("a: 1\nb: 2\na: 3\n")

    assert [(name, child.integer()) for name, child in root.named()] == [("a", 1), ("b", 2)]
    assert said(root) == ["policy.yaml:3 a: stands twice"]


def test_a_key_that_is_no_text_is_reported() -> None:
    root = node("[x, y]: 1\nb: 2\n")

    assert [name for name, _ in root.named()] == ["b"]
    assert said(root) == ["policy.yaml:1 ?: a key has to be plain text"]


def test_what_has_to_be_a_mapping_and_is_not_is_reported_once_for_all_its_missing_keys() -> None:
    read = value("[1]")

    assert read.fields(required=("x", "y")) == {}
    assert said(read) == ["policy.yaml:1 a: has to be a mapping, not a list"]


def test_unknown_keys_are_reported_with_the_nearest_known_one() -> None:
    root = node("priorty: 1\nzzz: 2\n")

    assert root.fields("priority", "queue") == {}
    assert said(root) == [
        "policy.yaml:1 priorty: unknown key; did you mean 'priority'?",
        "policy.yaml:2 zzz: unknown key",
    ]


def test_missing_keys_are_reported_at_the_mapping_that_lacks_them() -> None:
    root = node("outer:\n  inner:\n    x: 1\n")
    inner = root.fields("outer")["outer"].fields("inner")["inner"]

    inner.fields("x", required=("y",))

    assert said(root) == ["policy.yaml:2 outer.inner: 'y' is missing"]


def test_an_empty_value_is_a_mapping_without_entries_and_lacks_its_required_keys() -> None:
    read = value("")

    assert read.fields("x", required=("y",)) == {}
    assert said(read) == ["policy.yaml:1 a: 'y' is missing"]


@pytest.mark.parametrize("text", ["", "{}"])
def test_a_mapping_without_entries_is_wrong_only_where_the_reader_says_so(text: str) -> None:
    read = value(text)

    assert list(read.named()) == []
    assert said(read) == []
    assert list(read.named(empty="names nothing")) == []
    assert said(read) == ["policy.yaml:1 a: names nothing"]


def test_a_list_without_items_is_wrong_only_where_the_reader_says_so() -> None:
    read = value("[]")

    assert read.elements() == []
    assert said(read) == []
    assert read.elements(empty="names nobody") == []
    assert said(read) == ["policy.yaml:1 a: names nobody"]


def test_items_are_named_by_their_index_and_stand_on_their_own_line() -> None:
    first, second = value("\n- 1\n- x\n").elements()

    assert (first.integer(), second.integer()) == (1, 0)
    assert said(second) == ["policy.yaml:3 a[1]: has to be a whole number, not 'x'"]


def test_a_value_on_the_line_below_its_key_is_reported_on_its_own_line() -> None:
    read = value("\n  soon")

    read.seconds()

    assert said(read) == ["policy.yaml:2 a: has to be a duration such as 200ms, 2s or 5m, not 'soon'"]


def test_a_message_is_one_line_whatever_the_value_is() -> None:
    read = value("|\n  one\n  two\n")

    read.integer()

    assert said(read) == ["policy.yaml:1 a: has to be a whole number, not 'one two '"]


def test_a_silent_node_notes_nothing_on_the_document() -> None:
    read = value("x")

    read.silent().integer()

    assert said(read) == []


def test_an_absent_integer_is_none_and_a_present_one_is_checked() -> None:
    fields = node("x: 3\ny: -1\n").fields("x", "y", "z")

    assert [optional_integer(fields, key) for key in ("x", "y", "z")] == [3, 0, None]
    assert said(fields["x"]) == ["policy.yaml:2 y: has to be at least 0, not '-1'"]


TAGS = st.sampled_from(["", "!!int ", "!!float ", "!!bool ", "!!null ", "!!timestamp ", "!!binary ", "!!str ", "!x "])
RAW = st.text(alphabet="0123456789abefinorstxy_:.+-~ msKiB", max_size=12)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
)


@given(st.tuples(TAGS, RAW).map("".join) | VALUES.map(lambda v: yaml.safe_dump(v, default_flow_style=True)))
def test_every_reader_answers_every_value_with_a_value_or_one_problem(text: str) -> None:
    try:
        read = value(text.removesuffix("...\n"))
    except PolicyError:
        return

    for name, reader in READERS.items():
        read.problems.clear()
        reader(read)
        if name != "elements":
            assert len(read.problems) <= 1
        assert all("\n" not in str(problem) for problem in read.problems)
