from __future__ import annotations

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from headgate.yaml_tree import STR_TAG, DocumentError, ListNode, MapNode, Node, ScalarNode, parse_tree


def plain(node: Node | None) -> object:
    match node:
        case None:
            return None
        case ScalarNode(text=text):
            return text
        case ListNode(items=items):
            return [plain(item) for item in items]
        case MapNode():
            return [(plain(key), plain(value)) for key, value in node.pairs()]


def composed(node: yaml.Node | None) -> object:
    """The same from PyYAML's own nodes."""
    match node:
        case None:
            return None
        case yaml.ScalarNode():
            return node.value
        case yaml.SequenceNode():
            return [composed(item) for item in node.value]
        case _:
            return [(composed(key), composed(value)) for key, value in node.value]


def test_every_node_has_its_line_and_a_scalar_its_raw_text_and_tag() -> None:
    root = parse_tree("a: 007\n\nb:\n  - 'yes'\n  - !!int x\n", strict=True)

    assert isinstance(root, MapNode)
    ((_, number), (_, items)) = root.pairs()
    assert number == ScalarNode(1, "007", None)
    assert items == ListNode(4, [ScalarNode(4, "yes", STR_TAG), ScalarNode(5, "x", "tag:yaml.org,2002:int")])


def test_equal_texts_are_kept_once() -> None:
    root = parse_tree("- premium tier\n- premium tier\n", strict=True)

    assert isinstance(root, ListNode)
    first, second = root.items
    assert isinstance(first, ScalarNode)
    assert isinstance(second, ScalarNode)
    assert first.text is second.text


@pytest.mark.parametrize(
    ("text", "line", "problem"),
    [("a: 1\n---\nb: 2", 2, "found another document"), ("a: &x 1\nb: &x 2\nc: *x", 2, "second occurrence")],
)
def test_what_may_stand_twice_only_where_nobody_is_strict(text: str, line: int, problem: str) -> None:
    assert parse_tree(text, strict=False) is not None
    with pytest.raises(DocumentError, match=problem) as raised:
        parse_tree(text, strict=True)

    assert raised.value.line == line


def test_binary_text_is_decoded() -> None:
    assert plain(parse_tree("!!binary aGk=", strict=True)) == "hi"
    with pytest.raises(DocumentError, match="base64"):
        parse_tree("!!binary 'a'", strict=True)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
)


@given(VALUES)
def test_the_tree_is_the_one_pyyaml_composes(value: object) -> None:
    text = yaml.safe_dump(value)

    assert plain(parse_tree(text, strict=True)) == composed(yaml.compose(text))
