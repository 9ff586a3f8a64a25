"""The life of one request, from its headers to the end of its stream, as a state machine.

`receive(event, now)` returns the effects the shell has to carry out. No await, no clock, no log: every answer the
machine needs from outside comes back as an event. Each message of Envoy's gets exactly one reply.
"""

from __future__ import annotations

from dataclasses import dataclass

from msgspec.structs import replace

from extproc import answers, refusal
from extproc.admission import (
    Ladder,
    can_ever_fit,
    idle_room_tokens,
    is_closed,
    passing_question,
    question,
    tenant_concurrency,
)
from extproc.deadline import client_patience_seconds
from extproc.events import (
    AcquireLease,
    BodyReceived,
    Continue,
    Decision,
    Effect,
    Event,
    Forward,
    HeadersReceived,
    JoinQueue,
    LeaseGranted,
    LeaseRefused,
    OtherReceived,
    Phase,
    ReleaseLease,
    Report,
    Respond,
    StoreFailed,
    StreamEnded,
    TurnedAway,
    Verdict,
)
from extproc.headers import Headers
from extproc.identity import Identity, Unidentified, identify
from extproc.inspection import inspect
from extproc.inspection.request import InferenceRequest, RequestError
from extproc.inspection.target import Operation, Target, parse_target
from extproc.media import with_media_priced
from extproc.refusal import Refusal
from extproc.rewrite import rewrite
from extproc.routing import Destination, NoDestination, Signals, degraded_routes, find_route, is_served
from headgate.policy.model import OnStoreFailure, Policy, Queue, Rung
from headgate.store import Lease, LeaseRequest, Scope
from headgate.transport import StatusCode

_MAX_HITS = 10**9
"""Envoy leaves out a rate limit descriptor that counts more hits, and with it the limit."""
_TURNED_AWAY_MESSAGES = {
    "shutting_down": "The gateway is restarting; retry shortly.",
    "internal_error": "The gateway could not decide on this request; retry shortly.",
}


@dataclass(slots=True)
class _Attempt:
    """A request on its way to a lease: where it wants to run now, and what is left if that is refused."""

    request: InferenceRequest
    body: bytes
    destination: Destination
    ladder: Ladder
    waited_seconds: float = 0.0


class Exchange:
    """One request. `policy` stays the same for its whole life, whatever is reloaded meanwhile."""

    def __init__(self, policy: Policy, signals: Signals, region: str = "") -> None:
        self._policy = policy
        self._signals = signals
        self._region = region
        self._headers = Headers(())
        self._target = Target(None, Operation.OTHER)
        self._identity: Identity | None = None
        self._phase = Phase.REQUEST_HEADERS
        self._attempt: _Attempt | None = None
        self._lease: Lease | None = None
        self._is_decided = False
        self._is_body_complete = False
        self._started_at = 0.0

    @property
    def is_decided(self) -> bool:
        """Whether the client's fate is settled: from here on every message is waved through."""
        return self._is_decided

    def receive(self, event: Event, now: float) -> list[Effect]:
        """Take one event; `now` in seconds, monotonic."""
        match event:
            case HeadersReceived(headers, is_end):
                self._started_at = now
                return self._on_headers(headers, is_end=is_end)
            case BodyReceived(body, is_end):
                return self._on_body(body, is_end=is_end)
            case OtherReceived(phase):
                return [Continue(phase)]
            case LeaseGranted():
                return self._on_granted(event)
            case LeaseRefused():
                return self._on_refused(event, now)
            case StoreFailed():
                return self._on_store_failed()
            case TurnedAway(reason):
                self._is_decided = False
                return self._reject(refusal.unavailable(reason, _TURNED_AWAY_MESSAGES[reason]))
            case StreamEnded():
                return self._on_end()

    # who, and is it worth reading the body

    def _on_headers(self, headers: Headers, *, is_end: bool) -> list[Effect]:
        if self._is_decided or self._phase is Phase.REQUEST_BODY:
            return [Continue(Phase.REQUEST_HEADERS)]
        self._headers = headers
        self._target = parse_target(headers.get(":method"), headers.get(":path"))
        identity = identify(self._policy, headers)
        if isinstance(identity, Unidentified):
            return self._reject(refusal.unidentified(identity.reason, identity.message))
        self._identity = identity
        if not self._target.is_inference:
            return self._on_other_request(identity)
        refused = self._refuse_by_headers(identity, is_end=is_end)
        return self._reject(refused) if refused else [Continue(Phase.REQUEST_HEADERS)]

    def _on_other_request(self, identity: Identity) -> list[Effect]:
        model = self._target.model
        if model is not None and model not in self._policy.models:
            return self._reject(refusal.unknown_model(model))
        if self._target.operation is Operation.METADATA:
            return self._answer_metadata(identity)
        return [AcquireLease(passing_question(identity), identity.tier.priority)]

    def _answer_metadata(self, identity: Identity) -> list[Effect]:
        body = answers.metadata(self._policy, self._target)
        if body is None:
            return self._pass_on(identity)
        self._is_decided = True
        headers = {"content-type": "application/json"}
        return [Respond(status=200, headers=headers, body=body, grpc_status=StatusCode.OK, details="metadata")]

    def _refuse_by_headers(self, identity: Identity, *, is_end: bool) -> Refusal | None:
        """What can be refused before a byte of the body is buffered."""
        model, size_bytes = self._target.model, self._headers.content_length
        if model is not None and model not in self._policy.models:
            return refusal.unknown_model(model)
        if not is_served(self._policy, self._target):
            return refusal.not_served("protocol_not_served", "No model is served over this API.")
        if size_bytes is not None and size_bytes > identity.tier.max_body_bytes:
            return refusal.too_large(size_bytes, identity.tier.max_body_bytes)
        if self._headers.get("content-encoding") not in ("", "identity"):
            return refusal.bad_request("Compressed request bodies are not supported.", "content-encoding", 415)
        if is_end:
            return refusal.bad_request("The request has no body; a JSON object is expected.")
        limit = tenant_concurrency(identity)
        if limit is None or Rung.QUEUE in identity.tier.on_overload:
            return None
        if self._signals.in_flight(Scope.TENANT, identity.tenant.name) < limit:
            return None
        return refusal.contended(Scope.TENANT, 1.0 if limit else None)

    # what, and where to

    def _on_body(self, body: bytes, *, is_end: bool) -> list[Effect]:
        if self._is_decided or self._is_body_complete:
            # Envoy may deliver the last chunk twice (envoyproxy/envoy#46237).
            return [Continue(Phase.REQUEST_BODY)]
        self._phase = Phase.REQUEST_BODY
        if self._identity is None:
            # An Envoy told to skip the request headers; nobody is known to let through.
            return self._reject(refusal.unavailable("internal_error", _TURNED_AWAY_MESSAGES["internal_error"]))
        self._is_body_complete = is_end
        limit = self._identity.tier.max_body_bytes
        if len(body) > limit:
            return self._reject(refusal.too_large(len(body), limit))
        if not is_end:
            return self._reject(refusal.bad_request("Envoy must buffer the request body (request_body_mode BUFFERED)."))
        try:
            request = inspect(self._target, self._headers, body)
        except RequestError as error:
            return self._reject(refusal.bad_request(error.message, error.param, error.status))
        return self._route(self._identity, request, body)

    def _route(self, identity: Identity, request: InferenceRequest, body: bytes) -> list[Effect]:
        if request.model not in self._policy.models:
            return self._reject(refusal.unknown_model(request.model))
        request = with_media_priced(request, self._policy.models[request.model])
        found = find_route(self._policy, identity, request, self._headers, self._signals, self._region)
        if isinstance(found, NoDestination):
            return self._reject(refusal.not_served(found.reason, found.message))
        cheaper = [
            place
            for place in degraded_routes(self._policy, identity, request, found)
            if can_ever_fit(self._policy, identity, place)
        ]
        ladder = Ladder(list(identity.tier.on_overload), identity.tier.queue, found, cheaper)
        self._attempt = _Attempt(request, body, found, ladder)
        if not can_ever_fit(self._policy, identity, found):
            return self._on_never_fits(identity, self._attempt)
        is_degraded = self._signals.is_degraded(identity.tier, found.cluster.name)
        self._attempt.destination = ladder.start(is_degraded=is_degraded)
        return [AcquireLease(self._question(identity, self._attempt), identity.tier.priority)]

    def _question(self, identity: Identity, attempt: _Attempt) -> LeaseRequest:
        destination = attempt.destination
        return question(self._policy, identity, destination, self._signals.request_limit(destination.cluster))

    def _on_never_fits(self, identity: Identity, attempt: _Attempt) -> list[Effect]:
        room = idle_room_tokens(self._policy, identity, attempt.destination) or 0
        return self._reject(refusal.too_long(attempt.destination.charged_tokens, room))

    # whether now

    def _on_granted(self, granted: LeaseGranted) -> list[Effect]:
        if self._is_decided or self._identity is None:
            return [ReleaseLease(granted.lease)]
        self._lease = granted.lease
        if self._attempt is None:
            return self._pass_on(self._identity)
        return self._admit(self._identity, self._attempt, self._attempt.waited_seconds + granted.waited_seconds)

    def _admit(self, identity: Identity, attempt: _Attempt, waited_seconds: float) -> list[Effect]:
        self._is_decided = True
        destination = attempt.destination
        try:
            changed = rewrite(self._target, self._headers, attempt.request, destination, attempt.body)
        except RequestError as error:
            self._is_decided = False
            return self._reject(refusal.bad_request(error.message, error.param, error.status))
        verdict = Verdict.QUEUE if waited_seconds else Verdict.ADMIT
        verdict = Verdict.DEGRADE if destination.is_degraded else verdict
        decision = self._decision(verdict, destination.reason, 200, waited_seconds)
        headers = {"x-model-cluster": destination.frontend.envoy_cluster, **_stamp(identity, attempt.request.model)}
        if changed.path is not None:
            headers[":path"] = changed.path
        if changed.body is not None:
            headers["content-length"] = str(len(changed.body))
        attempt.body = b""
        forward = Forward(phase=self._phase, set_headers=headers, body=changed.body, metadata=_metadata(decision))
        return [forward, Report(decision)]

    def _pass_on(self, identity: Identity) -> list[Effect]:
        """A request that runs no model: stamped, sent to its model's cluster if it names one, else left to Envoy."""
        self._is_decided = True
        headers = _stamp(identity, self._target.model or "")
        frontend = answers.metadata_frontend(self._policy, self._target)
        if frontend is not None:
            headers |= {"x-model-cluster": frontend.envoy_cluster, ":path": self._target.path_for(frontend.model)}
        decision = self._decision(Verdict.ADMIT, "", 200)
        forward = Forward(phase=self._phase, set_headers=headers, metadata=_metadata(decision))
        return [forward, Report(decision)]

    def _on_refused(self, refused: LeaseRefused, now: float) -> list[Effect]:
        attempt = self._attempt
        if self._is_decided or self._identity is None:
            return []
        if attempt is None:
            return self._reject(_told(refused, passing_question(self._identity)))
        attempt.waited_seconds += refused.waited_seconds
        step = attempt.ladder.next(refused.scope)
        if step is None:
            told = _told(refused, self._question(self._identity, attempt))
            return self._reject(told, attempt.waited_seconds)
        if isinstance(step, Queue):
            attempt.destination = attempt.ladder.first
            return [self._join(self._identity, attempt, step, refused.scope, now - self._started_at)]
        if attempt.destination is attempt.ladder.first:
            self._signals.begin_degrading(self._identity.tier, attempt.destination.cluster.name, refused.scope)
        attempt.destination = step if step is attempt.ladder.first else replace(step, reason=_reason(refused))
        return [AcquireLease(self._question(self._identity, attempt), self._identity.tier.priority)]

    def _join(
        self, identity: Identity, attempt: _Attempt, queue: Queue, scope: Scope, elapsed_seconds: float
    ) -> JoinQueue:
        patience_seconds = client_patience_seconds(self._headers)
        is_client_first = patience_seconds is not None and patience_seconds - elapsed_seconds < queue.max_wait_seconds
        left_seconds = max(0.0, (patience_seconds or 0.0) - elapsed_seconds)
        return JoinQueue(
            request=self._question(identity, attempt),
            queue=queue,
            priority=identity.tier.priority,
            weight=identity.tenant.weight,
            size_bytes=len(attempt.body),
            max_wait_seconds=left_seconds if is_client_first else queue.max_wait_seconds,
            give_up_reason="client_deadline" if is_client_first else "queue_timeout",
            scope=scope,
        )

    def _on_store_failed(self) -> list[Effect]:
        if self._is_decided or self._identity is None:
            return []
        if self._policy.on_store_failure is OnStoreFailure.CLOSED:
            return self._reject(
                refusal.unavailable("store_unavailable", "Admission is not possible now; retry shortly.")
            )
        if self._attempt is None:
            return self._pass_on(self._identity)
        return self._admit(self._identity, self._attempt, 0.0)

    # the ends

    def _reject(self, refused: Refusal, waited_seconds: float = 0.0) -> list[Effect]:
        if self._is_decided:
            return []
        self._is_decided = True
        decision = self._decision(Verdict.REJECT, refused.reason, refused.status, waited_seconds)
        if self._attempt is not None:
            self._attempt.body = b""
        respond = Respond(
            status=refused.status,
            headers=refused.headers,
            body=refused.body(self._target.protocol),
            grpc_status=refused.grpc_status,
            details=f"headgate_{refused.reason}",
            metadata=_metadata(decision),
        )
        # The slot first: the client may be gone, and then nothing after its answer happens.
        return [*self._release(), respond, Report(decision)]

    def _on_end(self) -> list[Effect]:
        self._is_decided = True
        return self._release()

    def _release(self) -> list[Effect]:
        lease, self._lease = self._lease, None
        return [ReleaseLease(lease)] if lease is not None else []

    def _decision(self, verdict: Verdict, reason: str, status: int, waited_seconds: float = 0.0) -> Decision:
        attempt, identity, target = self._attempt, self._identity, self._target
        return Decision(
            request_id=self._headers.get("x-request-id"),
            verdict=verdict,
            reason=reason,
            status=status,
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
            traceparent=self._headers.get("traceparent"),
        )


def _told(refused: LeaseRefused, request: LeaseRequest) -> Refusal:
    return refusal.contended(_reason(refused), None if is_closed(request) else refused.retry_after_seconds)


def _reason(refused: LeaseRefused) -> str:
    return refused.queue_reason or refused.scope.value


def _stamp(identity: Identity, model: str) -> dict[str, str]:
    """The headers by which rate limits and model servers know the request's owner."""
    stamp = {"x-headgate-tenant": identity.tenant.name, "x-headgate-tier": identity.tier.name}
    return stamp | {"x-headgate-model": model} if model else stamp


def _metadata(decision: Decision) -> dict[str, str | float]:
    """Dynamic metadata of namespace `headgate`: for rate limits, response headers and the access log."""
    text = decision.verdict.lower() + (f"; reason={decision.reason}" if decision.reason else "")
    if decision.queue_wait_seconds:
        text += f"; wait={decision.queue_wait_seconds * 1000:.0f}ms"
    return {
        "request_id": decision.request_id,
        "tenant": decision.tenant,
        "tier": decision.tier,
        "model": decision.model,
        "cluster": decision.cluster,
        "protocol": decision.protocol,
        "operation": decision.operation,
        "verdict": decision.verdict,
        "reason": decision.reason,
        "decision": text,
        "prompt_tokens": decision.prompt_tokens,
        "max_output_tokens": decision.max_output_tokens,
        "charged_tokens": min(decision.charged_tokens, _MAX_HITS),
        "queue_wait_seconds": decision.queue_wait_seconds,
    }
