"""The lean transport: HTTP/2 and gRPC read and written here, for a tenth of what grpcio costs a stream.

    server -> protocol -> connection -> stream -> a conversation      (bytes in)
              protocol <- outbox     <- stream <- its call            (bytes out)

`connection` and everything right of it has no socket, no clock and no event loop: it can be driven by a test, a
fuzzer or a transcript. A conversation answers by plain calls; handlers that are coroutines get a task each.
"""

from headgate.transport.lean.server import LeanServer

__all__ = ["LeanServer"]
