"""A request on its way to a lease: where it wants to run now, and what is left if that is refused."""

from __future__ import annotations

from dataclasses import dataclass

from extproc.admission import Ladder
from extproc.inspection.request import InferenceRequest
from extproc.routing import Destination


@dataclass(slots=True)
class Attempt:
    """What changes of it on the way.

    Attributes:
        body: plain: decompressed and, of gRPC, the first message.
        waited_seconds: the time in queues it has left again.
    """

    request: InferenceRequest
    body: bytes
    destination: Destination
    ladder: Ladder
    waited_seconds: float = 0.0
