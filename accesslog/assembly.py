"""The service put together from its parts: the one place of this package that constructs concrete things."""

from __future__ import annotations

from accesslog.report import Reporter
from accesslog.service import AccessLogService
from headgate.lifecycle import Process


def assemble(process: Process) -> AccessLogService:
    """The service of this process."""
    process.records.follow(Reporter(process.metrics).report)
    return AccessLogService(process.records)
