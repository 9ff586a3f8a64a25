"""The sentiment model's arithmetic."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lexicon import sentiment_of


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("What a wonderful day", "positive"),
        ("The worst service", "negative"),
        ("The gate is open", "neutral"),
        ("", "neutral"),
        ("This is not good", "negative"),
        ("It isn\N{RIGHT SINGLE QUOTATION MARK}t good", "negative"),
        ("not good, awful", "negative"),
        ("It was slow but the result is excellent", "positive"),
        ("GREAT!!!", "positive"),
    ],
)
def test_the_label_follows_the_words(text, label):
    assert sentiment_of(text)[0] == label


def test_emphasis_makes_the_score_stronger():
    assert (
        sentiment_of("very good")[1] > sentiment_of("good")[1] > 0 > sentiment_of("bad")[1] > sentiment_of("so bad")[1]
    )


@given(st.text())
def test_the_score_stays_between_minus_one_and_one(text):
    label, score = sentiment_of(text)
    assert -1 <= score <= 1
    assert (score > 0, score < 0) == (label == "positive", label == "negative") or abs(score) <= 0.1
