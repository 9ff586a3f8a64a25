"""`python -m extproc`: the deciding service alone."""

from __future__ import annotations

import sys

from extproc.assembly import assemble
from extproc.wire import SERVICE_NAME
from headgate.lifecycle import Listener, Process, run_process
from headgate.settings import Settings


async def serve(settings: Settings) -> None:
    """Serve until a signal."""
    process = Process(settings, SERVICE_NAME)
    service = assemble(process)
    listener = Listener("extproc", settings.extproc_address, [service.service()])
    await process.run([listener], [], service.drain)


if __name__ == "__main__":
    sys.exit(run_process(serve))
