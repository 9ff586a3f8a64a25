"""`python -m ratelimit`: the limiting service alone, with the reference's settings."""

from __future__ import annotations

import os
import sys
from dataclasses import replace

from headgate.lifecycle import Process, run_process
from headgate.settings import Settings
from ratelimit.assembly import HEALTH_NAME, assemble
from ratelimit.reference_logs import apply_log_settings
from ratelimit.settings import read_ratelimit_settings


async def serve(settings: Settings) -> None:
    """Serve until a signal; the reference's addresses hold where Headgate's own are not set."""
    reference, defaults = read_ratelimit_settings(os.environ), Settings()
    if settings.ratelimit_address == defaults.ratelimit_address:
        settings = replace(settings, ratelimit_address=reference.serving.grpc_address)
    if settings.ratelimit_http_address == defaults.ratelimit_http_address:
        settings = replace(settings, ratelimit_http_address=reference.serving.http_address)
    if reference.serving.prometheus_address and settings.admin_address == defaults.admin_address:
        settings = replace(settings, admin_address=reference.serving.prometheus_address)
    apply_log_settings(reference.logs, level=settings.log_level == defaults.log_level)
    process = Process(settings, HEALTH_NAME)
    process.metrics_path = reference.serving.prometheus_path
    limits = assemble(process, debug_address=reference.serving.debug_address)
    await process.run([limits.listener(settings.ratelimit_address)], limits.parts, lambda: None)


if __name__ == "__main__":
    sys.exit(run_process(serve))
