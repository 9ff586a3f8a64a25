"""What can happen to a request (events, past tense) and what it can ask for (effects, imperative).

None of these values refers back to what refers to it, so the garbage collector need not look at them (`gc=False`).
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

import msgspec

from extproc.headers import Headers
from headgate.policy.model import Queue
from headgate.store import Lease, LeaseRequest, Scope
from headgate.transport import StatusCode


class Phase(StrEnum):
    """The part of the HTTP exchange a message of Envoy's is about."""

    REQUEST_HEADERS = "request_headers"
    REQUEST_BODY = "request_body"
    REQUEST_TRAILERS = "request_trailers"
    RESPONSE_HEADERS = "response_headers"
    RESPONSE_BODY = "response_body"
    RESPONSE_TRAILERS = "response_trailers"


class Verdict(StrEnum):
    """What became of a request."""

    ADMIT = "ADMIT"
    QUEUE = "QUEUE"
    DEGRADE = "DEGRADE"
    REJECT = "REJECT"


class Likeness:
    """What heads that are alike have in common, and no others."""

    __slots__ = ()


# Events


class HeadersReceived(msgspec.Struct, frozen=True, gc=False):
    """The request line and headers.

    Attributes:
        is_end: no body follows.
        is_duplex: the body comes in pieces as it arrives, and nothing goes on before the headers are answered.
        is_buffered: the body comes in one message, which does not say it is the end where trailers follow.
        likeness: the same for all that is alike but for headers that are `DIFFERENT_EVERY_TIME`; None when not known.
    """

    headers: Headers
    is_end: bool
    is_duplex: bool = False
    is_buffered: bool = False
    likeness: Likeness | None = None


class BodyReceived(msgspec.Struct, frozen=True, gc=False):
    """The request body or, of a duplex one, a piece of it."""

    body: bytes
    is_end: bool


class OtherReceived(msgspec.Struct, frozen=True, gc=False):
    """A message the decision does not depend on."""

    phase: Phase


class LeaseGranted(msgspec.Struct, frozen=True, gc=False):
    """The store said yes, after this long in the queue (0.0: at once)."""

    lease: Lease
    waited_seconds: float = 0.0


class LeaseRefused(msgspec.Struct, frozen=True, gc=False):
    """The store said no, or the queue gave up: then `queue_reason` says why."""

    scope: Scope
    retry_after_seconds: float
    queue_reason: str | None = None
    waited_seconds: float = 0.0

    @property
    def reason(self) -> str:
        """The word for it in metric, log and header."""
        return self.queue_reason or self.scope.value


class StoreFailed(msgspec.Struct, frozen=True, gc=False):
    """The store gave no answer in time."""

    waited_seconds: float = 0.0


class TokensCounted(msgspec.Struct, frozen=True, gc=False):
    """All texts of the prompt counted exactly; None when that could not be done."""

    tokens: int | None


class TurnedAway(msgspec.Struct, frozen=True, gc=False):
    """The shell cannot go on with a request whose message still waits for an answer.

    `reason` is `shutting_down` or `internal_error`.
    """

    reason: str


class StreamEnded(msgspec.Struct, frozen=True, gc=False):
    """Envoy closed the stream: the HTTP request is over, however it ended."""


Event = (
    HeadersReceived
    | BodyReceived
    | OtherReceived
    | LeaseGranted
    | LeaseRefused
    | StoreFailed
    | TokensCounted
    | TurnedAway
    | StreamEnded
)

# Effects


class AcquireLease(msgspec.Struct, frozen=True, gc=False):
    """Ask the store now; answered by `LeaseGranted`, `LeaseRefused` or `StoreFailed`.

    `priority` is the tier's: a request never passes one of the same or a better priority that waits.
    """

    request: LeaseRequest
    priority: int


class JoinQueue(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Wait for a slot; answered like `AcquireLease`.

    Attributes:
        weight: the tenant's share against others of its tier.
        size_bytes: what the request holds in memory while it waits.
        max_wait_seconds: the tier's patience or the client's, whichever ends first.
        give_up_reason: the reason of the refusal when that time is over.
        scope: what refused it.
        outlasts_store: whether it waits on while the store gives no answer; else it is told `StoreFailed`.
    """

    request: LeaseRequest
    queue: Queue
    priority: int
    weight: float
    size_bytes: int
    max_wait_seconds: float
    give_up_reason: str
    scope: Scope
    outlasts_store: bool = True


class CountTokens(msgspec.Struct, frozen=True, gc=False):
    """Count these texts, plain or JSON, by the `tokenizer.json` at this path; answered by `TokensCounted`."""

    path: str
    texts: tuple[str | msgspec.Raw, ...]


class ReleaseLease(msgspec.Struct, frozen=True, gc=False):
    """Give the slot back."""

    lease: Lease


class Decision(msgspec.Struct, frozen=True, gc=False):
    """What was decided, for logs, metrics and traces; emitted once per request.

    `traceparent` is the header as the client sent it.
    """

    request_id: str
    verdict: Verdict
    reason: str
    status: int
    tenant: str = ""
    tier: str = ""
    model: str = ""
    cluster: str = ""
    protocol: str = ""
    operation: str = ""
    prompt_tokens: int = 0
    max_output_tokens: int = 0
    charged_tokens: int = 0
    queue_wait_seconds: float = 0.0
    traceparent: str = ""
    uncorrected_prompt_tokens: int = 0

    @property
    def text(self) -> str:
        """What the client is told in `x-headgate-decision`."""
        return decision_text(self.verdict, self.reason, self.queue_wait_seconds)


def decision_text(verdict: str, reason: str, wait_seconds: float = 0.0) -> str:
    """`verdict; reason=...; wait=...ms`, as far as there is a reason or a wait."""
    text = verdict.lower() + (f"; reason={reason}" if reason else "")
    return f"{text}; wait={wait_seconds * 1000:.0f}ms" if wait_seconds else text


class Forward(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Let the request go on.

    Attributes:
        set_headers: request headers to overwrite, names in lower case.
        remove_headers: names of request headers that do not go on.
        body: the new body; None keeps the client's.
        decision: what the other filters and the access log are told.
    """

    phase: Phase
    set_headers: Mapping[str, str] = {}
    remove_headers: tuple[str, ...] = ()
    body: bytes | None = None
    decision: Decision | None = None


class SendBody(msgspec.Struct, frozen=True, gc=False):
    """Send the model server this much more of a duplex body; `is_end` when it is all."""

    body: bytes
    is_end: bool


class Respond(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Answer the client from here; the request goes no further."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    grpc_status: StatusCode
    details: str
    decision: Decision | None = None


class Continue(msgspec.Struct, frozen=True, gc=False):
    """Nothing to change in this phase."""

    phase: Phase


class Report(msgspec.Struct, frozen=True, gc=False):
    """Log and count the decision."""

    decision: Decision


Reply = Forward | SendBody | Respond | Continue
Effect = CountTokens | AcquireLease | JoinQueue | ReleaseLease | Report | Reply
