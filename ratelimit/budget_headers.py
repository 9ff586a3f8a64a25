"""What a tenant's client is told of its budgets with every answer: OpenAI's `x-ratelimit-*` headers.

As OpenAI writes them: https://platform.openai.com/docs/guides/rate-limits. A reset is a duration such as `6m0s`.
"""

from __future__ import annotations

from collections.abc import Iterator

from ratelimit.durations import duration_text
from ratelimit.limits import Verdict
from ratelimit.reply import Headers
from ratelimit.tenants import Budget

_KINDS = {budget.reason: budget.value for budget in Budget}


def budget_headers(verdict: Verdict) -> Headers:
    """Limit, remainder and reset of each budget that was charged; nothing while its count is not known."""
    return tuple(_headers(verdict))


def _headers(verdict: Verdict) -> Iterator[tuple[str, str]]:
    for status in verdict.statuses:
        kind = _KINDS.get(status.limit.name) if status.limit is not None else None
        if kind is None or status.limit is None or status.reset_seconds is None:
            continue
        yield f"x-ratelimit-limit-{kind}", str(status.limit.requests_per_unit)
        yield f"x-ratelimit-remaining-{kind}", str(status.remaining)
        yield f"x-ratelimit-reset-{kind}", duration_text(status.reset_seconds)
