"""What a request cost."""

from __future__ import annotations

from headgate.policy.model import Price
from headgate.record import RequestRecord


def cost_dollars(record: RequestRecord, price: Price) -> float:
    """The tokens at the cluster's prices; those found in the server's cache may have their own."""
    cached = min(record.cached_tokens or 0, record.used_prompt_tokens)
    cached_price = price.prompt if price.cached_prompt is None else price.cached_prompt
    prompt = (record.used_prompt_tokens - cached) * price.prompt + cached * cached_price
    return (prompt + record.used_output_tokens * price.output) / 1e6
