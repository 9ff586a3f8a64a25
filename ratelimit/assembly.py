"""The service put together from its parts: the one place of this package that constructs concrete things."""

from __future__ import annotations

import time

from headgate.lifecycle import Process
from ratelimit.current import CurrentConfiguration
from ratelimit.limits import Code
from ratelimit.service import RateLimitService


def assemble(process: Process) -> RateLimitService:
    """The service of this process; follows every reload of the policy."""
    current = CurrentConfiguration(process.policy.current())
    process.policy.on_change(current.adopt_policy)
    decisions = process.metrics.rate_limit_decisions
    limit_label = process.metrics.limit_label

    def record(domain: str, metric_key: str, code: Code, hits: int) -> None:
        del hits
        decisions.labels(domain, limit_label(metric_key), code).inc()

    return RateLimitService(configuration=current, clock=time.time, record=record)
