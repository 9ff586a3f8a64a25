"""`python -m extproc`: the deciding service alone."""

from __future__ import annotations

import sys

from extproc import kserve
from extproc.assembly import assemble
from extproc.wire import SERVICE_NAME
from headgate.lifecycle import Listener, Process, run_process
from headgate.settings import Settings


async def serve(settings: Settings) -> None:
    """Serve until a signal."""
    process = Process(settings, SERVICE_NAME, kserve.SERVICE_NAME)
    service = assemble(process)
    answers = kserve.kserve_service(process.policy.current, lambda: process.health.is_serving)
    listener = Listener("extproc", settings.extproc_address, [service.service(), answers])
    await process.run([listener], [], service.drain)


if __name__ == "__main__":
    sys.exit(run_process(serve))
