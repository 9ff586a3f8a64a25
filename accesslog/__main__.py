"""`python -m accesslog`: the accounting service alone."""

from __future__ import annotations

import sys

from accesslog.assembly import assemble
from accesslog.wire import SERVICE_NAME
from headgate.lifecycle import Listener, Process, run_process
from headgate.settings import Settings


async def serve(settings: Settings) -> None:
    """Serve until a signal."""
    process = Process(settings, SERVICE_NAME)
    service = assemble(process)
    await process.run([Listener("accesslog", settings.extproc_address, [service.service()])], [], service.drain)


if __name__ == "__main__":
    sys.exit(run_process(serve))
