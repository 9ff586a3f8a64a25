"""Sentiment by counting words: a signed lexicon, negation and emphasis.

Owns the words and the arithmetic; knows no Triton.
"""

from __future__ import annotations

import math
import re

_NEUTRAL_BAND = 0.1
_SOFTNESS = 6.0
_NEGATION_REACH = 3
_EMPHASIS = 1.5
_WORD = re.compile(r"[a-z']+")
_CLAUSE_END = re.compile(r"[.,;:!?\n]|\bbut\b")

_LIKED = {
    3.0: "amazing awesome brilliant excellent fantastic flawless outstanding perfect superb wonderful",
    2.0: "beautiful best delighted great happy impressive joy love loved loves reliable thrilled win",
    1.0: "better calm clear easy fast fine fresh friendly glad good helpful like nice quick solid thanks useful works",
}
_DISLIKED = {
    3.0: "abysmal atrocious awful disastrous disgusting dreadful horrible terrible unbearable worst",
    2.0: "angry bad broken fail failed fails hate hated hates sad scam ugly useless worse wrong",
    1.0: "annoying boring confusing cold cheap dull hard late lost noisy poor slow unclear weak worried",
}
_NEGATIONS = frozenset(
    ("not", "no", "never", "nothing", "hardly", "without", "isn't", "wasn't", "don't", "doesn't", "didn't", "won't")
)
_EMPHASISERS = frozenset(("very", "really", "extremely", "absolutely", "so", "too", "totally", "utterly"))

_WEIGHTS = {word: weight for weight, words in _LIKED.items() for word in words.split()} | {
    word: -weight for weight, words in _DISLIKED.items() for word in words.split()
}


def sentiment_of(text: str) -> tuple[str, float]:
    """Return `positive`, `neutral` or `negative`, and a score from -1 (worst) to 1 (best)."""
    clauses = _CLAUSE_END.split(text.lower().replace("\N{RIGHT SINGLE QUOTATION MARK}", "'"))
    total = sum(_weight_of(_WORD.findall(clause)) for clause in clauses)
    score = total / math.sqrt(total * total + _SOFTNESS)
    if score > _NEUTRAL_BAND:
        return "positive", score
    if score < -_NEUTRAL_BAND:
        return "negative", score
    return "neutral", score


def _weight_of(words: list[str]) -> float:
    return sum(_weight_at(words, position) for position in range(len(words)))


def _weight_at(words: list[str], position: int) -> float:
    weight = _WEIGHTS.get(words[position], 0.0)
    before = words[max(0, position - _NEGATION_REACH) : position]
    if before and before[-1] in _EMPHASISERS:
        weight *= _EMPHASIS
    if _NEGATIONS.intersection(before):
        weight = -weight / 2
    return weight
