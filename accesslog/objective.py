"""Whether a request was what its tier promises."""

from __future__ import annotations

from headgate.record import Outcome, RequestRecord

_TOO_MANY_REQUESTS = 429


def has_met(record: RequestRecord, ttft_seconds: float) -> bool | None:
    """Whether the first token came in time; None for a request that says nothing about it.

    An answer in one piece shows no first token: it is held against its wait in the queue alone. A request that was
    refused for want of room, or that failed, has not met its objective; one that its client spoilt or left before the
    time was over is not judged.

    Args:
        ttft_seconds: the tier's objective.
    """
    seconds = record.first_byte_seconds if record.is_stream else record.queue_wait_seconds
    match record.outcome:
        case Outcome.SERVED:
            return seconds is not None and seconds <= ttft_seconds
        case Outcome.CLIENT_LEFT if record.is_stream and seconds is not None:
            return seconds <= ttft_seconds
        case Outcome.CLIENT_LEFT:
            return False if record.first_byte_seconds is None and record.duration_seconds > ttft_seconds else None
        case Outcome.REFUSED | Outcome.MODEL_ERROR | Outcome.GATEWAY_ERROR:
            is_clients_fault = 400 <= record.status < 500 and record.status != _TOO_MANY_REQUESTS
            return None if is_clients_fault else False
