import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ratelimit.wildcards import WildcardIndex


@pytest.mark.parametrize(
    ("pattern", "text", "matches"),
    [
        ("foo*", "foo1", True),
        ("foo*", "foo", True),
        ("foo*", "fo", False),
        ("*", "", True),
        ("*", "anything", True),
        ("*bar", "foobar", True),
        ("*bar", "barb", False),
        ("bar*b", "barab", True),
        ("bar*b", "barb", True),
        ("bar*b", "bara", False),
        ("bar*b", "xbarb", False),
        ("foo*bar*baz", "foo123bar456baz", True),
        ("foo*bar*baz", "foobarbaz", True),
        ("foo*bar*baz", "foo123baz", False),
        ("foo*bar*baz", "bar456baz", False),
        ("a*a", "a", False),
        ("ab*ba", "aba", False),
        ("a*b*a", "aa", False),
        ("a**c", "abc", True),
        ("a*b*b*c", "abc", False),
    ],
)
def test_every_star_stands_for_zero_or_more_characters(pattern: str, text: str, matches: bool) -> None:
    assert (WildcardIndex([(pattern, "hit")]).first(text) is not None) == matches


@pytest.mark.parametrize(
    "patterns",
    [["foo*", "foo/bar*"], ["*r1", "foo*"], ["f*1", "*", "foo/bar1*"], ["foo/*x*1", "f*a*1", "foo*"]],
)
def test_the_first_pattern_in_file_order_wins_whatever_its_length(patterns: list[str]) -> None:
    text = "foo/bar1"
    expected = next(pattern for pattern in patterns if re.fullmatch(pattern.replace("*", ".*"), text))

    assert WildcardIndex((pattern, pattern) for pattern in patterns).first(text) == expected


PATTERNS = st.lists(st.text("ab*", max_size=6).map(lambda text: text + "*" if "*" not in text else text), max_size=8)


@given(patterns=PATTERNS, text=st.text("ab", max_size=8))
def test_the_index_finds_what_trying_each_pattern_in_turn_finds(patterns: list[str], text: str) -> None:
    in_turn = (pattern for pattern in patterns if re.fullmatch(pattern.replace("*", ".*"), text))

    assert WildcardIndex((pattern, pattern) for pattern in patterns).first(text) == next(in_turn, None)
