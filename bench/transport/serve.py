"""`python -m bench.transport.serve SUBJECT`: one server to be measured; prints its address when it listens."""

from __future__ import annotations

import asyncio
import gc
import sys
from collections.abc import Callable

from bench.transport.decision import decision_service
from bench.transport.noop import noop_services
from headgate.transport import Server
from headgate.transport.event_loop import run
from headgate.transport.grpcio import GrpcioServer
from headgate.transport.lean import LeanServer
from headgate.transport.lean.limits import Limits

_ADDRESS = "127.0.0.1:0"
_MAX_MESSAGE_BYTES = 16 * 1024 * 1024

SERVERS: dict[str, Callable[[], Server]] = {
    "lean": lambda: LeanServer(_ADDRESS, noop_services(), max_message_bytes=_MAX_MESSAGE_BYTES),
    "grpcio": lambda: GrpcioServer(_ADDRESS, noop_services(), max_message_bytes=_MAX_MESSAGE_BYTES),
    # h2spec uses a header table whatever a server allows it; so it gets one.
    "h2spec": lambda: LeanServer(
        "127.0.0.1:18080",
        noop_services(),
        max_message_bytes=_MAX_MESSAGE_BYTES,
        limits=Limits(max_message_bytes=_MAX_MESSAGE_BYTES, header_table_bytes=4096),
    ),
    "decision": lambda: LeanServer(_ADDRESS, [decision_service()], max_message_bytes=_MAX_MESSAGE_BYTES),
}


async def _serve(name: str) -> None:
    server = SERVERS[name]()
    print(await server.start(), flush=True)
    gc.freeze()
    await asyncio.Event().wait()


if __name__ == "__main__":
    run(_serve(sys.argv[1]))
