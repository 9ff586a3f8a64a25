"""A request on its way to a lease: where it wants to run now, and what is left if that is refused."""

from __future__ import annotations

import msgspec
from msgspec.structs import replace

from extproc import refusal
from extproc.admission import Ladder, is_closed, ladder_of
from extproc.events import Decision, JoinQueue, LeaseRefused, Respond, Verdict
from extproc.headers import Headers
from extproc.identity import Identity
from extproc.inspection.request import InferenceRequest, Prompt
from extproc.inspection.target import Target
from extproc.refusal import Refusal
from extproc.routing import Destination, Signals
from headgate.policy.model import Policy, Protocol, Queue
from headgate.store import LeaseRequest, Scope

_FORGOTTEN = Prompt()


class Attempt(msgspec.Struct, gc=False):
    """What changes of it on the way.

    Attributes:
        body: plain: decompressed and, of gRPC, the first message.
        ladder: None until it is needed.
        waited_seconds: the time in queues it has left again.
    """

    request: InferenceRequest
    body: bytes
    destination: Destination
    ladder: Ladder | None = None
    waited_seconds: float = 0.0

    def ladder_for(self, policy: Policy, identity: Identity, signals: Signals) -> Ladder:
        """Made for those that need it: most find a place at once."""
        if self.ladder is None:
            self.ladder = ladder_of(policy, identity, self.request, self.destination, signals)
        return self.ladder

    def forget_prompt(self) -> None:
        """Free what is as long as the prompt: the request is decided on, and may run for minutes."""
        self.body = b""
        self.request = replace(self.request, prompt=_FORGOTTEN, edited=None)


def contended(refused: LeaseRefused, request: LeaseRequest) -> Refusal:
    """What is told of the store's no, and when to come again; not at all where a limit of 0 lets nothing through."""
    return refusal.contended(refused.reason, None if is_closed(request) else refused.retry_after_seconds)


def respond(refused: Refusal, protocol: Protocol | None, decided: Decision | None = None) -> Respond:
    """The no in the client's own format."""
    return Respond(
        status=refused.status,
        headers=refused.headers(protocol),
        body=refused.body(protocol),
        grpc_status=refused.grpc_status,
        details=f"headgate_{refused.reason}",
        decision=decided,
    )


def joining(
    attempt: Attempt,
    identity: Identity,
    queue: Queue,
    *,
    request: LeaseRequest,
    scope: Scope,
    left_seconds: float | None,
    outlasts_store: bool,
) -> JoinQueue:
    """Its place in the queue, for as long as the tier and the client have patience.

    Args:
        left_seconds: what is left of the client's; None when it did not say.
    """
    is_client_first = left_seconds is not None and left_seconds < queue.max_wait_seconds
    return JoinQueue(
        request=request,
        queue=queue,
        priority=identity.tier.priority,
        weight=identity.tenant.weight,
        size_bytes=len(attempt.body),
        max_wait_seconds=max(0.0, left_seconds or 0.0) if is_client_first else queue.max_wait_seconds,
        give_up_reason="client_deadline" if is_client_first else "queue_timeout",
        scope=scope,
        outlasts_store=outlasts_store,
    )


def decision(
    headers: Headers,
    target: Target,
    identity: Identity | None,
    attempt: Attempt | None,
    verdict: Verdict,
    reason: str,
    status: int,
    waited_seconds: float,
) -> Decision:
    """What is told of a request whose fate is settled, however far it came."""
    return Decision(
        headers.get("x-request-id"),
        verdict,
        reason,
        status,
        tenant=identity.tenant.name if identity else "",
        tier=identity.tier.name if identity else "",
        protocol=target.protocol or "other",
        operation=target.operation,
        model=attempt.request.model if attempt else target.model or "",
        cluster=attempt.destination.cluster.name if attempt else "",
        prompt_tokens=attempt.request.prompt_tokens if attempt else 0,
        max_output_tokens=(attempt.destination.max_output_tokens or 0) if attempt else 0,
        charged_tokens=attempt.destination.charged_tokens if attempt else 0,
        queue_wait_seconds=waited_seconds,
        traceparent=headers.get("traceparent"),
        uncorrected_prompt_tokens=attempt.request.uncorrected_prompt_tokens if attempt else 0,
    )
