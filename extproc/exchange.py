"""The life of one request, from its headers to the end of its stream, as a state machine.

`receive(event, now)` returns the effects the shell has to carry out. No await, no clock, no log: every answer the
machine needs from outside comes back as an event. Each message of Envoy's gets exactly one reply.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from msgspec.structs import replace

from extproc import answers, refusal
from extproc.admission import (
    can_ever_fit,
    idle_room_tokens,
    passing_question,
    question,
)
from extproc.affinity import AffinityNames
from extproc.attempt import Attempt, contended, decision, joining, respond
from extproc.deadline import seconds_left
from extproc.early import HAS_TO_BUFFER, refuse_early, standing
from extproc.estimates import Estimates
from extproc.events import (
    AcquireLease,
    BodyReceived,
    Continue,
    CountTokens,
    Decision,
    Effect,
    Event,
    Forward,
    HeadersReceived,
    LeaseGranted,
    LeaseRefused,
    OtherReceived,
    Phase,
    ReleaseLease,
    Report,
    Respond,
    SendBody,
    StoreFailed,
    StreamEnded,
    TokensCounted,
    TurnedAway,
    Verdict,
)
from extproc.headers import Headers
from extproc.identity import Identity
from extproc.inspection import inspect
from extproc.inspection.content import ENCODING_HEADER, GRPC_ENCODING_HEADER, plain_body
from extproc.inspection.kserve_grpc import asked_model
from extproc.inspection.request import InferenceRequest, RequestError
from extproc.inspection.target import Operation, Target
from extproc.message_stream import Course, MessageStream
from extproc.refusal import Refusal
from extproc.rewrite import Rewrite, rewrite
from extproc.routing import NoDestination, Signals, find_route
from extproc.sizing import counted, is_worth_counting, sized
from extproc.stamps import stamp, stamp_route
from headgate.policy.model import OnStoreFailure, Policy, Queue
from headgate.store import Lease, LeaseRequest
from headgate.transport import StatusCode

_NO_HEADERS, _NO_TARGET = Headers(()), Target(None, Operation.OTHER)
_HEADERS, _BODY = Phase.REQUEST_HEADERS, Phase.REQUEST_BODY
_ADMIT, _QUEUE, _DEGRADE = Verdict.ADMIT, Verdict.QUEUE, Verdict.DEGRADE


class Exchange:
    """One request. `policy` stays the same for its whole life, whatever is reloaded meanwhile."""

    __slots__ = (
        "_affinity", "_attempt", "_course", "_estimates", "_headers", "_identity", "_is_body_complete", "_is_buffered",
        "_is_decided", "_lease", "_now", "_phase", "_policy", "_region", "_signals", "_started_at", "_stream",
        "_target", "_uncounted",
    )  # fmt: skip

    def __init__(
        self,
        policy: Policy,
        signals: Signals,
        region: str = "",
        affinity: AffinityNames | None = None,
        estimates: Estimates | None = None,
    ) -> None:
        self._policy = policy
        self._signals = signals
        self._region = region
        self._affinity = affinity or AffinityNames()
        self._estimates = estimates or Estimates()
        self._headers = _NO_HEADERS
        self._target = _NO_TARGET
        self._identity: Identity | None = None
        self._phase = _HEADERS
        self._uncounted: tuple[InferenceRequest, bytes] | None = None
        self._attempt: Attempt | None = None
        self._stream: MessageStream | None = None
        self._course: Course | None = None
        self._lease: Lease | None = None
        self._is_decided = self._is_body_complete = self._is_buffered = False
        self._now = self._started_at = 0.0

    @property
    def is_decided(self) -> bool:
        """Whether the client's fate is settled: from here on every message is waved through."""
        return self._is_decided

    @property
    def is_detachable(self) -> bool:
        """Whether Envoy can go on without us: decided, and no duplex body, of which Envoy would send a piece again."""
        return self._is_decided and self._course is None

    def receive(self, event: Event, now: float) -> list[Effect]:
        """Take one event; `now` in seconds, monotonic."""
        self._now = now
        return TAKE[type(event)](self, event)

    def _on_other(self, other: OtherReceived) -> list[Effect]:
        is_undecided = self._stream is not None and not (self._is_decided or self._attempt)
        if other.phase is Phase.REQUEST_TRAILERS and is_undecided:
            return self._on_body(BodyReceived(b"", is_end=True))
        return [Continue(other.phase)]

    def _on_turned_away(self, turned_away: TurnedAway) -> list[Effect]:
        if turned_away.reason == "shutting_down" and self._stream is not None and self._is_decided:
            return []
        self._is_decided = False
        return self._reject(refusal.turned_away(turned_away.reason))

    # who, and is it worth reading the body

    def _on_headers(self, received: HeadersReceived) -> list[Effect]:
        if self._is_decided or self._phase is _BODY:
            return [Continue(_HEADERS)]
        self._started_at = self._now
        self._headers, self._is_buffered = received.headers, received.is_buffered
        known = standing(self._policy, received)
        self._target, identity = known.target, known.caller
        if isinstance(identity, Refusal):
            return self._reject(identity)
        self._identity = identity
        if not self._target.is_inference:
            return self._on_other_request(identity)
        if refused := refuse_early(known, identity, received, self._signals):
            return self._reject(refused)
        if received.is_duplex:
            self._stream = MessageStream(self._headers.get(GRPC_ENCODING_HEADER), identity.tier.max_body_bytes)
            return []
        return [Continue(_HEADERS)]

    def _on_other_request(self, identity: Identity) -> list[Effect]:
        model = self._target.model
        if model is not None and model not in self._policy.models:
            return self._reject(refusal.unknown_model(model))
        if self._target.is_model_question:
            return [Continue(_HEADERS)]
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

    # what, and where to

    def _on_body(self, received: BodyReceived) -> list[Effect]:
        body, is_end = received.body, received.is_end
        if self._stream is not None and self._identity is not None:
            return self._on_piece(self._identity, self._stream, body, is_end=is_end)
        if self._is_decided or self._is_body_complete:
            # Envoy may deliver the last chunk twice (envoyproxy/envoy#46237).
            return [Continue(_BODY)]
        self._phase = _BODY
        if self._identity is None:
            # An Envoy told to skip the request headers; nobody is known to let through.
            return self._reject(refusal.turned_away("internal_error"))
        self._is_body_complete = is_end or self._is_buffered
        limit = self._identity.tier.max_body_bytes
        if len(body) > limit:
            return self._reject(refusal.too_large(len(body), limit))
        if not self._is_body_complete:
            return self._reject(refusal.bad_request(HAS_TO_BUFFER))
        try:
            plain = plain_body(self._target, self._headers, body, limit)
            if self._target.is_model_question:
                return self._on_model_question(self._identity, plain)
            request = inspect(self._target, self._headers, plain)
        except RequestError as error:
            return self._reject(refusal.unreadable(error))
        return self._route(self._identity, request, plain)

    def _on_model_question(self, identity: Identity, message: bytes) -> list[Effect]:
        self._target = replace(self._target, model=asked_model(message))
        if self._target.model not in self._policy.models:
            return self._reject(refusal.unknown_model(self._target.model or ""))
        return self._pass_on(identity, message)

    def _on_piece(self, identity: Identity, stream: MessageStream, piece: bytes, *, is_end: bool) -> list[Effect]:
        """A piece of a duplex body: nothing is answered before the first message has been decided on."""
        if self._is_decided and self._course is None:
            return []
        try:
            stream.feed(piece, is_end=is_end)
            if self._course is not None:
                return [SendBody(stream.take(self._course), is_end)]
            if self._attempt is None and stream.first is not None:
                request = inspect(self._target, self._headers, stream.first)
                return self._route(identity, request, stream.first)
        except RequestError as error:
            return self._refuse_piece(refusal.unreadable(error))
        is_empty = is_end and self._attempt is None
        return self._reject(refusal.bad_request("The stream carries no message.")) if is_empty else []

    def _refuse_piece(self, refused: Refusal) -> list[Effect]:
        # The decision on the stream has been reported; what follows is between Envoy and the client.
        return [respond(refused, self._target.protocol)] if self._course is not None else self._reject(refused)

    def _route(self, identity: Identity, request: InferenceRequest, body: bytes) -> list[Effect]:
        model = self._policy.models.get(request.model)
        if model is None:
            return self._reject(refusal.unknown_model(request.model))
        correction = self._estimates.correction(model.name)
        request = sized(request, model, correction, self._estimates.output_tokens(identity.tenant.name, model.name))
        if model.tokenizer and is_worth_counting(self._policy, identity, model, request, correction):
            self._uncounted = (request, body)
            return [CountTokens(model.tokenizer, request.prompt.texts)]
        return self._place(identity, request, body)

    def _on_counted(self, counted_tokens: TokensCounted) -> list[Effect]:
        tokens = counted_tokens.tokens
        uncounted, self._uncounted = self._uncounted, None
        if self._is_decided or self._identity is None or uncounted is None:
            return []
        request, body = uncounted
        if tokens is not None:
            request = counted(request, self._policy.models[request.model], tokens)
        return self._place(self._identity, request, body)

    def _place(self, identity: Identity, request: InferenceRequest, body: bytes) -> list[Effect]:
        found = find_route(self._policy, identity, request, self._headers, self._signals, self._region)
        if isinstance(found, NoDestination):
            return self._reject(refusal.not_served(found.reason, found.message))
        self._attempt = attempt = Attempt(request, body, found)
        if not can_ever_fit(self._policy, identity, found):
            room = idle_room_tokens(self._policy, identity, found.cluster) or 0
            return self._reject(refusal.too_long(found.charged_tokens, room))
        if self._signals.is_degraded(identity.tier, found.cluster.name):
            attempt.destination = attempt.ladder_for(self._policy, identity, self._signals).start_degraded(
                self._signals
            )
        return [AcquireLease(self._question(identity, attempt), identity.tier.priority)]

    def _question(self, identity: Identity, attempt: Attempt) -> LeaseRequest:
        destination = attempt.destination
        return question(self._policy, identity, destination, self._signals.request_limit(destination.cluster))

    # whether now

    def _on_granted(self, granted: LeaseGranted) -> list[Effect]:
        if self._is_decided or self._identity is None:
            return [ReleaseLease(granted.lease)]
        self._lease = granted.lease
        if self._attempt is None:
            return self._pass_on(self._identity)
        return self._admit(self._identity, self._attempt, self._attempt.waited_seconds + granted.waited_seconds)

    def _admit(self, identity: Identity, attempt: Attempt, waited_seconds: float) -> list[Effect]:
        self._is_decided = True
        destination = attempt.destination
        group = self._affinity.name(destination.cluster.affinity, identity.tenant.name, self._headers, attempt.request)
        try:
            changed, pieces = self._fit(identity, attempt)
        except RequestError as error:
            self._is_decided = False
            return self._reject(refusal.unreadable(error))
        verdict = _DEGRADE if destination.is_degraded else _QUEUE if waited_seconds else _ADMIT
        decided = self._decision(verdict, destination.reason, 200, waited_seconds)
        attempt.forget_prompt()
        headers = stamp(identity, attempt.request.model)
        stamp_route(headers, destination, changed, group)
        was_encoded = changed.body is not None and self._headers.get(ENCODING_HEADER)
        forward = Forward(
            phase=self._phase,
            set_headers=headers,
            remove_headers=(ENCODING_HEADER,) if was_encoded else (),
            body=changed.body,
            decision=decided,
        )
        return [forward, *pieces, Report(decided)]

    def _fit(self, identity: Identity, attempt: Attempt) -> tuple[Rewrite, list[SendBody]]:
        if self._stream is None:
            return rewrite(self._target, self._headers, attempt.request, attempt.destination, attempt.body), []
        attempt.forget_prompt()
        course = Course(identity, attempt.request, attempt.destination)
        pieces = [SendBody(self._stream.take(course), self._stream.is_complete)]
        self._course = course
        return Rewrite(None, None), pieces

    def _pass_on(self, identity: Identity, message: bytes = b"") -> list[Effect]:
        """A request that runs no model: stamped, sent to who can answer it, else left to Envoy."""
        self._is_decided = True
        question = answers.question(self._policy, self._target, message)
        # A question carries no tenant: rate limits, which go by that header, never count it.
        is_question = self._target.operation is Operation.METADATA
        headers = question.headers if is_question else stamp(identity, self._target.model or "") | question.headers
        decided = self._decision(_ADMIT, "", 200)
        forward = Forward(phase=self._phase, set_headers=headers, body=question.body, decision=decided)
        return [forward, Report(decided)]

    def _on_refused(self, refused: LeaseRefused) -> list[Effect]:
        attempt = self._attempt
        if self._is_decided or self._identity is None:
            return []
        if attempt is None:
            return self._reject(contended(refused, passing_question(self._identity)))
        attempt.waited_seconds += refused.waited_seconds
        ladder = attempt.ladder_for(self._policy, self._identity, self._signals)
        step = ladder.next(refused.scope)
        if step is None:
            return self._reject(contended(refused, self._question(self._identity, attempt)), attempt.waited_seconds)
        if isinstance(step, Queue):
            attempt.destination = ladder.first
            return [
                joining(
                    attempt,
                    self._identity,
                    step,
                    request=self._question(self._identity, attempt),
                    scope=refused.scope,
                    left_seconds=seconds_left(self._headers, self._now - self._started_at),
                    outlasts_store=self._policy.on_store_failure is not OnStoreFailure.OPEN,
                )
            ]
        if attempt.destination is ladder.first:
            self._signals.begin_degrading(self._identity.tier, attempt.destination.cluster.name, refused.scope)
        attempt.destination = step if step is ladder.first else replace(step, reason=refused.reason)
        return [AcquireLease(self._question(self._identity, attempt), self._identity.tier.priority)]

    def _on_store_failed(self, failed: StoreFailed) -> list[Effect]:
        waited_seconds = failed.waited_seconds
        if self._is_decided or self._identity is None:
            return []
        if self._policy.on_store_failure is OnStoreFailure.CLOSED:
            return self._reject(
                refusal.unavailable("store_unavailable", "Admission is not possible now; retry shortly."),
                waited_seconds,
            )
        if self._attempt is None:
            return self._pass_on(self._identity)
        return self._admit(self._identity, self._attempt, waited_seconds)

    # the ends

    def _reject(self, refused: Refusal, waited_seconds: float = 0.0) -> list[Effect]:
        if self._is_decided:
            return []
        self._is_decided = True
        decided = self._decision(Verdict.REJECT, refused.reason, refused.status, waited_seconds)
        if self._attempt is not None:
            self._attempt.forget_prompt()
        # The slot first: the client may be gone, and then nothing after its answer happens.
        return [*self._release(), respond(refused, self._target.protocol, decided), Report(decided)]

    def _on_end(self, ended: StreamEnded) -> list[Effect]:
        del ended
        self._is_decided = True
        return self._release()

    def _release(self) -> list[Effect]:
        lease, self._lease = self._lease, None
        return [ReleaseLease(lease)] if lease is not None else []

    def _decision(self, verdict: Verdict, reason: str, status: int, waited_seconds: float = 0.0) -> Decision:
        return decision(
            self._headers, self._target, self._identity, self._attempt, verdict, reason, status, waited_seconds
        )


TAKE: Mapping[type[Event], Callable[[Exchange, Any], list[Effect]]] = {
    HeadersReceived: Exchange._on_headers,
    BodyReceived: Exchange._on_body,
    OtherReceived: Exchange._on_other,
    LeaseGranted: Exchange._on_granted,
    LeaseRefused: Exchange._on_refused,
    StoreFailed: Exchange._on_store_failed,
    TokensCounted: Exchange._on_counted,
    TurnedAway: Exchange._on_turned_away,
    StreamEnded: Exchange._on_end,
}
"""Who takes each event; a look-up, as to match the classes one by one takes longer than some of them."""
