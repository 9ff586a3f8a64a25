import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate.yaml_tree import DocumentError, ListNode, MapNode, Node, ScalarNode
from ratelimit.nodes import parse, scalar_of
from ratelimit.scalars import Kind


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


def test_scalars_keep_their_raw_text_and_nodes_their_line() -> None:
    root = parse(b"a: 007\n\nb:\n  - yes\n")

    assert plain(root) == [("a", "007"), ("b", ["yes"])]
    assert isinstance(root, MapNode)
    assert [value.line for _, value in root.pairs()] == [1, 4]


@pytest.mark.parametrize(
    ("text", "kind"), [("5", Kind.INT), ("'5'", Kind.STR), ("!!str 5", Kind.STR), ("!!int '5'", Kind.INT)]
)
def test_quotes_and_tags_make_text_of_a_number_and_a_number_of_text(text: str, kind: Kind) -> None:
    root = parse(text.encode())

    assert isinstance(root, ScalarNode)
    assert scalar_of(root).kind is kind


def test_aliases_stand_for_the_node_they_name() -> None:
    assert plain(parse(b"a: &x [1]\nb: *x\n")) == [("a", ["1"]), ("b", ["1"])]


@pytest.mark.parametrize("text", [b"", b"# only a comment\n"])
def test_a_file_without_a_document_has_no_root(text: bytes) -> None:
    assert parse(text) is None


def test_only_the_first_document_is_read() -> None:
    assert plain(parse(b"a: 1\n---\nb: 2\n")) == [("a", "1")]


def test_a_byte_order_mark_is_no_part_of_the_text() -> None:
    assert plain(parse("\ufeffa: 1".encode())) == [("a", "1")]


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        (b"'''\n", 2, "found unexpected end of stream"),
        (b"a: 1\nb: \xff\n", 2, "invalid Unicode character"),
        (b"a: &x\n  - *x\n", 2, "anchor 'x' value contains itself"),
        (b"a: *y\n", 1, "unknown anchor 'y' referenced"),
        (b"[" * 100_000, 1, "nested over 100 levels deep"),
    ],
    ids=["quote", "unicode", "cycle", "unknown_anchor", "deep"],
)
def test_what_is_not_yaml_is_named_with_its_line(text: bytes, line: int, message: str) -> None:
    with pytest.raises(DocumentError) as raised:
        parse(text)

    assert (raised.value.line, raised.value.message) == (line, message)


@given(text=st.one_of(st.binary(max_size=60), st.text("ab:-[]{}&*!'\"\n #<,", max_size=60).map(str.encode)))
def test_no_text_raises_anything_but_a_document_error(text: bytes) -> None:
    try:
        parse(text)
    except DocumentError:
        pass
