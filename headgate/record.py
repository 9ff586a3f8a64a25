"""What really happened to one request, as Envoy saw it end, and who wants to hear of it.

Never a prompt, a response or a credential.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass

_log = logging.getLogger("headgate.record")


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestRecord:
    """One finished request.

    Attributes:
        verdict: ADMIT, QUEUE, DEGRADE or REJECT; "" when the request never reached a decision.
        status: the HTTP status the client got; 0 when it left before one.
        details: Envoy's response code details.
        duration_seconds: from the request's first byte to the response's last.
        first_byte_seconds: from the request's first byte to the response's first; None when there was none.
        prompt_tokens, output_tokens: as the model server reported; None when it did not.
        estimated_prompt_tokens: what admission reckoned with.
        charged_tokens: what its lease and its tenant's token limit were charged: prompt plus capped output.
    """

    request_id: str
    tenant: str
    tier: str
    model: str
    cluster: str
    protocol: str
    operation: str
    verdict: str
    reason: str
    status: int
    details: str
    duration_seconds: float
    first_byte_seconds: float | None
    queue_wait_seconds: float
    request_bytes: int
    response_bytes: int
    attempts: int
    prompt_tokens: int | None
    output_tokens: int | None
    cached_tokens: int | None
    estimated_prompt_tokens: int
    charged_tokens: int


Listener = Callable[[RequestRecord], None]


class RecordFeed:
    """Hands every finished request to all who follow: metrics, estimators, settlement. On the event loop only."""

    def __init__(self) -> None:
        self._listeners: list[Listener] = []

    def follow(self, listener: Listener) -> None:
        """Call `listener` with every record from now on."""
        self._listeners.append(listener)

    def publish(self, record: RequestRecord) -> None:
        """Tell all; one that fails keeps the record from nobody else."""
        for listener in self._listeners:
            try:
                listener(record)
            except Exception:  # noqa: BLE001  (the outermost frame of a listener)
                _log.exception("a record could not be counted")
