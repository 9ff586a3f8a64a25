"""Whether an exact token count could change a decision: is a number that matters inside the estimate's error band?

What matters: the numbers in rules about the prompt's size, what the clusters can hold, and the tenant's token budget.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from extproc.admission import idle_room_tokens
from extproc.calibration import Correction
from extproc.identity import Identity
from headgate.policy.model import Model, Policy


def thresholds(policy: Policy, identity: Identity, model: Model, output_tokens: int) -> Iterator[int]:
    """The prompt sizes, in tokens, at which something changes for this tenant and model."""
    for route in model.routes:
        if route.when is not None:
            yield from route.when.prompt_sizes
    for name in {route.cluster for route in model.routes} | set(model.degrade):
        room = idle_room_tokens(policy, identity, policy.clusters[name])
        if room is not None:
            yield room - output_tokens
    budget = identity.tenant.limits.tokens_per_minute
    if budget is not None:
        yield budget - output_tokens


def is_decisive(prompt_tokens: int, correction: Correction, sizes: Iterable[int]) -> bool:
    """Whether the true size may lie on the other side of one of `sizes`; `prompt_tokens` is the corrected estimate."""
    low, high = prompt_tokens * correction.low, prompt_tokens * correction.high
    return any(low <= size <= high for size in sizes)
