"""What is a YAML document and what is not."""

from __future__ import annotations

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from headgate.errors import PolicyError
from headgate.policy.document import parse_document


def refusal(text: bytes) -> str:
    with pytest.raises(PolicyError) as caught:
        parse_document(text, "policy.yaml")
    [problem] = caught.value.problems
    return str(problem)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b"", "policy.yaml: is empty"),
        (b"# only a comment\n", "policy.yaml: is empty"),
        (b"a: 1\nb: \xff\n", "policy.yaml:2: is not UTF-8"),
        ("a: 1".encode("utf-16"), "policy.yaml:1: is not UTF-8"),
        (b"a: 1\n\nb: \x00", "policy.yaml:3: is not YAML: control characters are not allowed"),
        (
            b"a: 1\nb: [1, 2\n",
            "policy.yaml:3: is not YAML: while parsing a flow sequence, did not find expected ',' or ']'",
        ),
        (b"a: b: c", "policy.yaml:1: is not YAML: mapping values are not allowed in this context"),
        (b"a: 1\nb: *x", "policy.yaml:2: is not YAML: unknown anchor 'x' referenced"),
        (b"a: &x 1\nb: &x 2", "policy.yaml:2: is not YAML: found duplicate anchor 'x', second occurrence"),
        (
            b"a: 1\n---\nb: 2",
            "policy.yaml:2: is not YAML: expected a single document in the stream, but found another document",
        ),
        (
            b'a: "\\ud800"',
            "policy.yaml:1: is not YAML: while parsing a quoted scalar, found invalid Unicode character escape code",
        ),
        (
            b'a: "\\UFFFFFFFF"',
            "policy.yaml:1: is not YAML: while parsing a quoted scalar, found invalid Unicode character escape code",
        ),
        (b"%YAML 2.0\n--- a", "policy.yaml:1: is not YAML: found incompatible YAML document"),
        (b"[" * 100_000, "policy.yaml:1: is not YAML: nested over 100 levels deep"),
        (b"{a: " * 100_000, "policy.yaml:1: is not YAML: nested over 100 levels deep"),
        (b"- " * 100_000, "policy.yaml:1: is not YAML: nested over 100 levels deep"),
        (b"? " * 100_000, "policy.yaml:1: is not YAML: nested over 100 levels deep"),
    ],
    ids=lambda value: repr(value[:20]) if isinstance(value, bytes) else "",
)
def test_what_is_no_document_is_refused_with_its_line(text: bytes, expected: str) -> None:
    assert refusal(text) == expected


def test_a_byte_order_mark_is_not_part_of_the_first_key() -> None:
    root = parse_document(b"\xef\xbb\xbfa: 1\n", "policy.yaml")

    assert [name for name, _ in root.named()] == ["a"]


def test_a_tag_that_names_a_python_object_makes_none() -> None:
    root = parse_document(b"a: !!python/object/apply:os.getcwd []\n", "policy.yaml")

    assert root.fields("a")["a"].elements() == []


def test_a_list_that_contains_itself_is_no_document() -> None:
    assert refusal(b"a: &a [*a]\n") == "policy.yaml:1: is not YAML: anchor 'a' value contains itself"


@given(st.binary(max_size=200))
def test_no_bytes_raise_anything_but_a_policy_error(text: bytes) -> None:
    assert is_refused_in_one_line_or_read(text)


@given(st.text(alphabet="ab01 \n\t:-?[]{},&*!|>'\"%@`#~<=\\xuU/.\u0085\u2028é", max_size=60))
def test_no_play_of_yaml_signs_raises_anything_but_a_policy_error(text: str) -> None:
    assert is_refused_in_one_line_or_read(text.encode())


SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10) | st.dates() | st.binary()
DOCUMENTS = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4)
)


@given(DOCUMENTS)
def test_whatever_a_yaml_writer_writes_is_a_document(value: object) -> None:
    text = yaml.safe_dump(value, allow_unicode=False).encode()

    assert parse_document(text, "policy.yaml").problems == []


def is_refused_in_one_line_or_read(text: bytes) -> bool:
    try:
        return not parse_document(text, "policy.yaml").problems
    except PolicyError as error:
        return len(error.problems) == 1 and "\n" not in str(error)
