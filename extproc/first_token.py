"""What a first token takes on a cluster that is not congested, by prompt size: learnt, and slow to forget.

Knows no limits and no clock.
"""

from __future__ import annotations

from dataclasses import dataclass, field

_FIXED_TOKENS = 100
"""What a request costs before its first prompt token, counted in prompt tokens: about an iteration of the engine."""
_GROUP = 16
_RANK = _GROUP // 4
"""A group of samples stands for its lower quartile, which neither outliers nor short bursts move."""
_DOUBLES_IN_SECONDS = 600.0


@dataclass(slots=True)
class _Bucket:
    """Prompts of about one size: seconds per token (prompt and fixed)."""

    group: list[float] = field(default_factory=list)
    lowest: float | None = None
    learnt_at: float = 0.0


class FirstTokenModel:
    """One cluster's.

    Sizes are told apart by powers of two. The lowest quartile seen counts, and doubles in ten minutes if it is not
    seen again: a slower model behind the same name is believed, a long overload is not taken for normal.
    """

    def __init__(self) -> None:
        self._buckets: dict[int, _Bucket] = {}

    def expected_seconds(self, prompt_tokens: int) -> float | None:
        """The time to a first token without congestion; None for a size not known yet."""
        bucket = self._buckets.get(_size(prompt_tokens))
        if bucket is None or bucket.lowest is None:
            return None
        return bucket.lowest * (max(0, prompt_tokens) + _FIXED_TOKENS)

    def learn(self, prompt_tokens: int, seconds: float, now: float) -> None:
        """One request's time to its first token."""
        bucket = self._buckets.setdefault(_size(prompt_tokens), _Bucket())
        bucket.group.append(seconds / (max(0, prompt_tokens) + _FIXED_TOKENS))
        if len(bucket.group) < _GROUP:
            return
        quartile = sorted(bucket.group)[_RANK - 1]
        bucket.group.clear()
        if bucket.lowest is None:
            bucket.lowest = quartile
        else:
            risen = bucket.lowest * 2.0 ** ((now - bucket.learnt_at) / _DOUBLES_IN_SECONDS)
            bucket.lowest = min(quartile, risen)
        bucket.learnt_at = now

    def raise_by(self, factor: float) -> None:
        """What was expected was too little, for all sizes alike."""
        for bucket in self._buckets.values():
            if bucket.lowest is not None:
                bucket.lowest *= factor


def _size(prompt_tokens: int) -> int:
    return max(0, prompt_tokens).bit_length()
