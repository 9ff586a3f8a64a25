import pytest
from hypothesis import given
from hypothesis import strategies as st

from ratelimit.scalars import Kind, resolve


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("5", 5),
        ("-1", -1),
        ("+5", 5),
        ("1_000", 1000),
        ("0x10", 16),
        ("010", 8),
        ("0b11", 3),
        ("0", 0),
        ("4294967296", 2**32),
        ("18446744073709551615", 2**64 - 1),
    ],
)
def test_whole_numbers_are_read_in_every_base_yaml_1_1_has(text: str, number: int) -> None:
    assert (resolve(text).kind, resolve(text).number, resolve(text).text) == (Kind.INT, number, text)


@pytest.mark.parametrize("text", ["1.5", "5.0", "1e3", ".5", "-2.", ".inf", "-.INF", ".NaN", "18446744073709551616"])
def test_what_go_would_read_as_a_fraction_is_one(text: str) -> None:
    assert resolve(text).kind is Kind.FLOAT
    assert not resolve(text).is_checkable


@pytest.mark.parametrize(("text", "number"), [("y", 1), ("Yes", 1), ("on", 1), ("true", 1), ("N", 0), ("off", 0)])
def test_yaml_1_1_has_many_booleans(text: str, number: int) -> None:
    assert (resolve(text).kind, resolve(text).number) == (Kind.BOOL, number)


@pytest.mark.parametrize("text", ["", "~", "null", "NULL"])
def test_nothing_is_null(text: str) -> None:
    assert resolve(text).kind is Kind.NULL


@pytest.mark.parametrize("text", ["yEs", "1:30", "2020-01-01", "0b12", "1-2", "_", ".", "-", "e3", "nUll", "1.2.3"])
def test_everything_else_is_text(text: str) -> None:
    assert resolve(text).kind is Kind.STR


def test_numbers_beyond_64_bits_signed_are_refused_by_the_references_check() -> None:
    assert resolve("9223372036854775807").is_checkable
    assert resolve("-9223372036854775808").is_checkable
    assert not resolve("9223372036854775808").is_checkable


@given(text=st.one_of(st.text("0123456789xb_.eE+-", max_size=12), st.just("9" * 10_000)))
def test_any_text_resolves_to_something_that_keeps_it(text: str) -> None:
    assert resolve(text).text == text
