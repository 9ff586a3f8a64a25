"""What can happen to a request (events, past tense) and what it can ask for (effects, imperative)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

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


# Events


@dataclass(frozen=True, slots=True)
class HeadersReceived:
    """The request line and headers; `is_end` when no body follows."""

    headers: Headers
    is_end: bool


@dataclass(frozen=True, slots=True)
class BodyReceived:
    """The request body; in BUFFERED mode all of it in one message with `is_end`."""

    body: bytes
    is_end: bool


@dataclass(frozen=True, slots=True)
class OtherReceived:
    """A message the decision does not depend on."""

    phase: Phase


@dataclass(frozen=True, slots=True)
class LeaseGranted:
    """The store said yes, after this long in the queue (0.0: at once)."""

    lease: Lease
    waited_seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class LeaseRefused:
    """The store said no, or the queue gave up: then `queue_reason` says why."""

    scope: Scope
    retry_after_seconds: float
    queue_reason: str | None = None
    waited_seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class StoreFailed:
    """The store gave no answer in time."""


@dataclass(frozen=True, slots=True)
class TurnedAway:
    """The shell cannot go on with a request whose message still waits for an answer.

    `reason` is `shutting_down` or `internal_error`.
    """

    reason: str


@dataclass(frozen=True, slots=True)
class StreamEnded:
    """Envoy closed the stream: the HTTP request is over, however it ended."""


Event = (
    HeadersReceived
    | BodyReceived
    | OtherReceived
    | LeaseGranted
    | LeaseRefused
    | StoreFailed
    | TurnedAway
    | StreamEnded
)

# Effects


@dataclass(frozen=True, slots=True)
class AcquireLease:
    """Ask the store now; answered by `LeaseGranted`, `LeaseRefused` or `StoreFailed`.

    `priority` is the tier's: a request never passes one of the same or a better priority that waits.
    """

    request: LeaseRequest
    priority: int


@dataclass(frozen=True, slots=True, kw_only=True)
class JoinQueue:
    """Wait for a slot; answered like `AcquireLease`.

    Attributes:
        weight: the tenant's share against others of its tier.
        size_bytes: what the request holds in memory while it waits.
        max_wait_seconds: the tier's patience or the client's, whichever ends first.
        give_up_reason: the reason of the refusal when that time is over.
        scope: what refused it.
    """

    request: LeaseRequest
    queue: Queue
    priority: int
    weight: float
    size_bytes: int
    max_wait_seconds: float
    give_up_reason: str
    scope: Scope


@dataclass(frozen=True, slots=True)
class ReleaseLease:
    """Give the slot back."""

    lease: Lease


@dataclass(frozen=True, slots=True, kw_only=True)
class Forward:
    """Let the request go on.

    Attributes:
        set_headers: request headers to overwrite, names in lower case.
        body: the new body; None keeps the client's.
        metadata: what the other filters and the access log are told.
    """

    phase: Phase
    set_headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | None = None
    metadata: Mapping[str, str | float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Respond:
    """Answer the client from here; the request goes no further."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    grpc_status: StatusCode
    details: str
    metadata: Mapping[str, str | float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Continue:
    """Nothing to change in this phase."""

    phase: Phase


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What was decided, for logs and metrics; emitted once per request."""

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


@dataclass(frozen=True, slots=True)
class Report:
    """Log and count the decision."""

    decision: Decision


Reply = Forward | Respond | Continue
Effect = AcquireLease | JoinQueue | ReleaseLease | Report | Reply
