"""The stand-in's tokenizer: reversible, and as dense as a real one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from stand_in import tokenizer

INT32_MAX = 2**31 - 1


@given(st.text(st.characters(exclude_categories=["Cs"]) | st.sampled_from("  aB\n"), max_size=200))
def test_decoding_gives_the_text_back(text):
    assert tokenizer.decode(tokenizer.encode(text.encode())) == text


@given(st.binary())
def test_any_bytes_become_ids_that_fit_an_int32_tensor(data):
    assert all(0 <= token_id <= INT32_MAX for token_id in tokenizer.encode(data))


@given(st.integers(-INT32_MAX - 1, INT32_MAX))
def test_any_id_can_be_read(token_id):
    assert isinstance(tokenizer.decode([token_id]), str)


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("", []),
        ("gate", ["gate"]),
        (" gate", [" gate"]),
        ("The keeper", ["The", " keepe", "r"]),
        ("GPU", ["G", "P", "U"]),
        ("1, 2", ["1", ",", " ", "2"]),
        ("{    gate", ["{", "   ", " gate"]),
        ("a  =  b", ["a", "  ", "=", "  ", "b"]),
    ],
)
def test_a_token_is_up_to_five_letters_with_the_space_before_them(text, tokens):
    assert [tokenizer.decode([token_id]) for token_id in tokenizer.encode(text.encode())] == tokens


def test_end_and_pad_are_silent():
    assert tokenizer.decode([tokenizer.END_ID, *tokenizer.encode(b"gate"), tokenizer.PAD_ID]) == "gate"


@pytest.mark.parametrize("token_id", [-1, 258, (1 << 27) | 31, INT32_MAX])
def test_an_id_it_never_makes_reads_as_the_replacement_character(token_id):
    assert tokenizer.decode([token_id]) == "\N{REPLACEMENT CHARACTER}"


def test_english_takes_about_four_bytes_a_token_and_json_far_fewer():
    english = b"The quick brown fox jumps over the lazy dog while the keeper of the gate counts every boat that passes."
    json = b'{"a1":[10,20,30],"b2":{"x":-0.5,"y":1e9}}'
    assert 3.5 < len(english) / len(tokenizer.encode(english)) < 5.0
    assert 1.0 <= len(json) / len(tokenizer.encode(json)) < 1.6
