"""How long the answers of a model to a tenant usually are, learned from what the models report.

Knows no clock; a restart begins anew.
"""

from __future__ import annotations

from collections import OrderedDict

_NEWEST_WEIGHT = 0.05
_MIN_SAMPLES = 5
_MAX_PAIRS = 10_000


class Expectation:
    """A moving mean of output tokens for each (tenant, model); the pairs longest unheard of are forgotten."""

    def __init__(self) -> None:
        self._means: OrderedDict[tuple[str, str], tuple[int, float]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._means)

    def output_tokens(self, tenant: str, model: str) -> int | None:
        """The expected length of one answer; None while too little is known."""
        samples, mean = self._means.get((tenant, model), (0, 0.0))
        return round(mean) if samples >= _MIN_SAMPLES else None

    def observe(self, *, tenant: str, model: str, output_tokens: int) -> None:
        """Learn from one finished answer."""
        samples, mean = self._means.pop((tenant, model), (0, 0.0))
        samples += 1
        # A plain mean at first, so that the first answer does not count for ever.
        mean += max(_NEWEST_WEIGHT, 1.0 / samples) * (output_tokens - mean)
        self._means[tenant, model] = (min(samples, _MIN_SAMPLES * 100), mean)
        if len(self._means) > _MAX_PAIRS:
            self._means.popitem(last=False)
