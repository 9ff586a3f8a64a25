"""The service put together from its parts: the one place of this package that constructs concrete things."""

from __future__ import annotations

from accesslog.report import Reporter
from accesslog.request_log import RequestLog
from accesslog.service import AccessLogService
from headgate.lifecycle import Process


def assemble(process: Process) -> AccessLogService:
    """The service of this process."""
    policy, metrics = process.policy.current, process.metrics
    process.records.follow(Reporter(metrics, policy).report)
    process.records.follow(RequestLog(process.settings.request_log_share, metrics.log_lines_left_out.inc).write)
    metrics.watch(
        "slo_ttft_seconds",
        "The time to first token a tier is promised.",
        ("tier",),
        lambda: [
            ((tier.name,), tier.ttft_slo_seconds)
            for tier in policy().tiers.values()
            if tier.ttft_slo_seconds is not None
        ],
    )
    return AccessLogService(process.records)
