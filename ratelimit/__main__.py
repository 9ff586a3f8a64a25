"""`python -m ratelimit`: the limiting service alone."""

from __future__ import annotations

import sys

from headgate.http import HttpServer
from headgate.lifecycle import Listener, Process, run_process
from headgate.settings import Settings
from ratelimit.assembly import assemble
from ratelimit.http import http_application

HEALTH_NAME = "ratelimit"


async def serve(settings: Settings) -> None:
    """Serve until a signal."""
    process = Process(settings, HEALTH_NAME)
    service = assemble(process)
    http = HttpServer(settings.ratelimit_http_address, http_application(service, process.health))
    await process.run([Listener("ratelimit", settings.ratelimit_address, [service.service])], [http], lambda: None)


if __name__ == "__main__":
    sys.exit(run_process(serve))
