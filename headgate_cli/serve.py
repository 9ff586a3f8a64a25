"""`headgate serve`: all three services in one process."""

from __future__ import annotations

import accesslog.assembly
import accesslog.wire
import extproc.assembly
import extproc.kserve
import extproc.wire
import ratelimit.assembly
from headgate.lifecycle import Listener, Process
from headgate.settings import Settings
from ratelimit.assembly import HEALTH_NAME


async def serve(settings: Settings) -> None:
    """Serve until a signal."""
    process = Process(
        settings, extproc.wire.SERVICE_NAME, accesslog.wire.SERVICE_NAME, HEALTH_NAME, extproc.kserve.SERVICE_NAME
    )
    decides = extproc.assembly.assemble(process)
    limits = ratelimit.assembly.assemble(process, settles=True)
    accounts = accesslog.assembly.assemble(process)
    answers = extproc.kserve.kserve_service(process.policy.current, lambda: process.health.is_serving)
    listeners = [
        Listener("extproc", settings.extproc_address, [decides.service(), answers, accounts.service()]),
        limits.listener(settings.ratelimit_address),
    ]

    def drain() -> None:
        decides.drain()
        accounts.drain()

    await process.run(listeners, limits.parts, drain)
