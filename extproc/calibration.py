"""How far the byte estimate of prompt tokens is off for each model, learned from what the models report.

A model's tokenizer, chat template and traffic decide how many tokens its prompts really have; the median of the last
reported sizes over the estimates corrects for all three. No tenant can bend it far: each counts as much as any other,
however many requests it sends, and a correction never leaves stated bounds. Knows no clock; a restart begins anew.
"""

from __future__ import annotations

from collections import OrderedDict, deque

import msgspec

MIN_FACTOR, MAX_FACTOR = 0.75, 2.0
"""A prompt is never taken for less than three quarters of what its bytes say."""
UNCALIBRATED_LOW, UNCALIBRATED_HIGH = 1 / 3, 1.6
"""Reported over estimated tokens before anything is learned; see `extproc.tokens`."""
_MIN_SAMPLES = 50
_TENANT_SAMPLES = 128
_MAX_TENANTS = 32
_MAX_MODELS = 1000
_LEARN_EVERY = 32
_MIN_TOKENS = 32
"""Below that the chat template is most of a prompt."""


class Correction(msgspec.Struct, frozen=True):
    """What an estimate is multiplied with, and within which factors of the product 95 % of prompts were.

    Attributes:
        low, high: reported tokens lie between these multiples of the corrected estimate.
    """

    factor: float = 1.0
    low: float = UNCALIBRATED_LOW
    high: float = UNCALIBRATED_HIGH


NO_CORRECTION = Correction()


class Calibration:
    """One per sidecar; models and tenants are those of the policy, and bounded all the same."""

    def __init__(self) -> None:
        self._models: OrderedDict[str, _Samples] = OrderedDict()

    def correction(self, model: str) -> Correction:
        """What is known for a model by now."""
        samples = self._models.get(model)
        return samples.correction if samples is not None else NO_CORRECTION

    def observe(self, *, model: str, tenant: str, estimated_tokens: int, reported_tokens: int) -> None:
        """Learn from one finished request; `estimated_tokens` without any correction."""
        if estimated_tokens < _MIN_TOKENS or reported_tokens <= 0:
            return
        samples = self._models.setdefault(model, _Samples())
        self._models.move_to_end(model)
        if len(self._models) > _MAX_MODELS:
            self._models.popitem(last=False)
        samples.add(tenant, reported_tokens / estimated_tokens)


class _Samples:
    """The last ratios of one model, as many of each tenant at most."""

    def __init__(self) -> None:
        self.correction = NO_CORRECTION
        self._tenants: OrderedDict[str, deque[float]] = OrderedDict()
        self._unlearned = 0

    def add(self, tenant: str, ratio: float) -> None:
        self._tenants.setdefault(tenant, deque(maxlen=_TENANT_SAMPLES)).append(ratio)
        self._tenants.move_to_end(tenant)
        if len(self._tenants) > _MAX_TENANTS:
            self._tenants.popitem(last=False)
        self._unlearned += 1
        if self._unlearned >= _LEARN_EVERY:
            self._learn()

    def _learn(self) -> None:
        if sum(map(len, self._tenants.values())) < _MIN_SAMPLES:
            return
        self._unlearned = 0
        weighted = sorted((ratio, 1.0 / len(kept)) for kept in self._tenants.values() for ratio in kept)
        lowest, median, highest = (_quantile(weighted, share * len(self._tenants)) for share in (0.025, 0.5, 0.975))
        factor = min(max(median, MIN_FACTOR), MAX_FACTOR)
        self.correction = Correction(factor, min(1.0, lowest / factor), max(1.0, highest / factor))


def _quantile(weighted: list[tuple[float, float]], weight: float) -> float:
    """The first value up to which the weights add up to `weight`."""
    for value, own in weighted:
        weight -= own
        if weight <= 0.0:
            return value
    return weighted[-1][0]
