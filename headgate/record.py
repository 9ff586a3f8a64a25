"""What really happened to one request, as Envoy saw it end, and who wants to hear of it.

Never a prompt, a response or a credential.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from enum import StrEnum

import msgspec

_LONGEST_BATCH_SECONDS = 10.0
_log = logging.getLogger("headgate.record")


class Outcome(StrEnum):
    """How a request ended, and who ended it."""

    SERVED = "served"
    REFUSED = "refused"
    MODEL_ERROR = "model_error"
    GATEWAY_ERROR = "gateway_error"
    CLIENT_LEFT = "client_left"


class UsageSource(StrEnum):
    """Where token counts come from; NONE when no model worked on the request."""

    REPORTED = "reported"
    ESTIMATED = "estimated"
    NONE = ""


class RequestRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One finished request. Times count from `started_at`, the request's first byte at Envoy.

    Attributes:
        verdict: ADMIT, QUEUE, DEGRADE or REJECT; "" when the request never reached a decision.
        status: the HTTP status the client got; 0 when it left before one.
        details: Envoy's response code details.
        duration_seconds: until the response's last byte.
        first_byte_seconds: until the first byte of the response's body; None when there was none.
        prompt_tokens, output_tokens: as the model server reported; None when it did not.
        cached_tokens: the part of `prompt_tokens` it found in its cache, likewise.
        estimated_prompt_tokens: what admission reckoned with.
        uncorrected_prompt_tokens: the same before what was learned about the model; 0 when it teaches nothing.
        charged_tokens: what its lease and its tenant's token limit were charged: prompt plus capped output.
        estimated_output_tokens: what the response looks like where its usage was not reported; None when no model ran.
        outcome: how it ended.
        is_stream: the response came as events; else its first byte says nothing of its first token.
        started_at: seconds since the epoch.
        upstream_sent_seconds: until the last byte was sent to the model server; None when nothing was.
        last_byte_seconds: until the model server's last byte; None when it sent none.
        upstream_cluster, route: the names Envoy has for where the request went.
        flags: Envoy's response flags by their short names, such as UC or DC.
        traceparent: the W3C trace context the request came with; "" when it had none that is valid.
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
    estimated_output_tokens: int | None = None
    uncorrected_prompt_tokens: int = 0
    outcome: Outcome = Outcome.SERVED
    is_stream: bool = False
    started_at: float = 0.0
    upstream_sent_seconds: float | None = None
    last_byte_seconds: float | None = None
    upstream_cluster: str = ""
    route: str = ""
    flags: tuple[str, ...] = ()
    traceparent: str = ""

    def age_seconds(self, now: float) -> float:
        """How long ago it ended, `now` in seconds since the epoch; 0 where Envoy's clock cannot tell.

        Envoy may run elsewhere: clocks that disagree by more than any batch takes are not believed.
        """
        age_seconds = now - self.started_at - self.duration_seconds
        return age_seconds if 0.0 < age_seconds < _LONGEST_BATCH_SECONDS else 0.0

    @property
    def has_run(self) -> bool:
        """Whether a model worked on it, as far as its tokens tell."""
        counts = (self.output_tokens, self.prompt_tokens, self.estimated_output_tokens)
        return any(count is not None for count in counts)

    @property
    def usage_source(self) -> UsageSource:
        """REPORTED only when both counts are."""
        if not self.has_run:
            return UsageSource.NONE
        is_reported = self.output_tokens is not None and self.prompt_tokens is not None
        return UsageSource.REPORTED if is_reported else UsageSource.ESTIMATED

    @property
    def used_prompt_tokens(self) -> int:
        """What to account: as reported, else as estimated; 0 when no model ran."""
        if self.prompt_tokens is not None:
            return self.prompt_tokens
        return self.estimated_prompt_tokens if self.has_run else 0

    @property
    def used_output_tokens(self) -> int:
        """Likewise."""
        return self.output_tokens if self.output_tokens is not None else self.estimated_output_tokens or 0

    @property
    def upstream_first_byte_seconds(self) -> float | None:
        """The model server's part of the time to the first byte."""
        if self.first_byte_seconds is None or self.upstream_sent_seconds is None:
            return None
        return max(0.0, self.first_byte_seconds - self.upstream_sent_seconds)

    @property
    def output_token_seconds(self) -> float | None:
        """Between two output tokens, on average; None unless a stream reported at least two."""
        first, last, count = self.first_byte_seconds, self.last_byte_seconds, self.output_tokens
        if not self.is_stream or first is None or last is None or count is None or count < 2:
            return None
        return max(0.0, last - first) / (count - 1)


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
