"""What really happened to one request, as Envoy saw it end. Never a prompt, a response or a credential."""

from __future__ import annotations

from dataclasses import dataclass


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
    """

    request_id: str
    tenant: str
    tier: str
    model: str
    cluster: str
    protocol: str
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
