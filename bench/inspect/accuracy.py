"""How far the estimate is from the real number of tokens, per kind of text, over pieces of several sizes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from bench.percentiles import nearest_rank
from extproc.calibration import Calibration
from extproc.tokens import estimate_tokens

_ENOUGH = 1_000_000
_PIECES = ((200, 40), (2000, 20), (20_000, 3))
"""Characters of a piece, and at most how many pieces of that size."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Accuracy:
    """Errors as factors less one: 0.5 is half too high, or too low by the same factor.

    Attributes:
        bias: the median of the estimate over the real count.
        worst_under: how many times too low the estimate was at worst, less one.
        calibrated_p95, calibrated_worst: the errors once half of the pieces have taught the correction, of the rest.
    """

    kind: str
    pieces: int
    bias: float
    p50: float
    p95: float
    worst: float
    worst_under: float
    calibrated_p95: float
    calibrated_worst: float


def accuracies(texts: Mapping[str, str], count: Callable[[str], Mapping[str, int]]) -> list[Accuracy]:
    """One for each kind of text, and `all` of them together."""
    ratios = {kind: list(_ratios(text, count)) for kind, text in texts.items()}
    every = [ratio for kind in ratios.values() for ratio in kind]
    return [_accuracy(kind, found) for kind, found in (*ratios.items(), ("all", every))]


def _ratios(text: str, count: Callable[[str], Mapping[str, int]]) -> Iterator[float]:
    """Estimate over real count, for each piece and vocabulary."""
    for size, most in _PIECES:
        for start in range(0, min(len(text) - size, most * size) + 1, size):
            piece = text[start : start + size]
            for tokens in count(piece).values():
                yield estimate_tokens(piece) / tokens


def _calibrated(ratios: Sequence[float]) -> Iterator[float]:
    """The errors of every other piece, corrected by what the ones between them have taught."""
    calibration = Calibration()
    # Each piece is counted by two vocabularies.
    taught, kept = ([ratio for at, ratio in enumerate(ratios) if at // 2 % 2 == half] for half in (0, 1))
    for ratio in taught:
        calibration.observe(model="", tenant="", estimated_tokens=_ENOUGH, reported_tokens=round(_ENOUGH / ratio))
    factor = calibration.correction("").factor
    for ratio in kept:
        yield max(ratio * factor, 1 / (ratio * factor)) - 1


def _accuracy(kind: str, ratios: Sequence[float]) -> Accuracy:
    found, left = sorted(ratios), sorted(_calibrated(ratios))
    errors = sorted(max(ratio, 1 / ratio) - 1 for ratio in found)
    return Accuracy(
        kind=kind,
        pieces=len(found),
        bias=nearest_rank(found, 50),
        p50=nearest_rank(errors, 50),
        p95=nearest_rank(errors, 95),
        worst=errors[-1],
        worst_under=max(0.0, 1 / found[0] - 1),
        calibrated_p95=nearest_rank(left, 95),
        calibrated_worst=left[-1],
    )
