"""What a head tells: what is asked for, by whom, and whether it can be refused before a byte of the body is held."""

from __future__ import annotations

import msgspec

from extproc import refusal
from extproc.admission import tenant_concurrency
from extproc.events import HeadersReceived
from extproc.headers import DIFFERENT_EVERY_TIME
from extproc.identity import Identity, Unidentified, identify
from extproc.inspection.compression import UNREADABLE
from extproc.inspection.content import ENCODING_HEADER, is_readable
from extproc.inspection.target import Operation, Target, parse_target
from extproc.refusal import Refusal
from extproc.routing import Signals, is_served
from headgate.policy.model import Policy, Rung
from headgate.store import Scope

HAS_TO_BUFFER = "Envoy must buffer the request body (request_body_mode BUFFERED)."
_RETRY_AFTER_SECONDS = 1.0
_NO_COUNTING = "Tokens are not counted here without running the model; every answer tells its own usage."


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """What is the same for all requests with such a head.

    Attributes:
        caller: who is asking, or why that is not known.
        refused: why a request that runs a model need not be read; None where its body has to tell.
        tenant_limit: so many requests its tenant may have in flight, and no more could wait; None where more could.
    """

    target: Target
    caller: Identity | Refusal
    refused: Refusal | None = None
    tenant_limit: int | None = None


def standing(policy: Policy, received: HeadersReceived) -> Standing:
    """Worked out once for all heads that are alike."""
    known: Standing | None = policy.standings.get(received.likeness)
    if known is None:
        known = _standing(policy, received)
        if received.likeness is not None and policy.credential_headers.isdisjoint(DIFFERENT_EVERY_TIME):
            policy.standings[received.likeness] = known
    return known


def refuse_early(known: Standing, identity: Identity, received: HeadersReceived, signals: Signals) -> Refusal | None:
    """Why a request that runs a model need not be read, as it stands and things are now."""
    if known.refused is not None:
        return known.refused
    size_bytes, max_bytes = received.headers.content_length, identity.tier.max_body_bytes
    if size_bytes is not None and size_bytes > max_bytes:
        return refusal.too_large(size_bytes, max_bytes)
    limit = known.tenant_limit
    if limit is not None and signals.in_flight(Scope.TENANT, identity.tenant.name) >= limit:
        return refusal.contended(Scope.TENANT, _RETRY_AFTER_SECONDS if limit else None)
    return None


def _standing(policy: Policy, received: HeadersReceived) -> Standing:
    headers = received.headers
    target, caller = parse_target(headers.get(":method"), headers.get(":path")), identify(policy, headers)
    if isinstance(caller, Unidentified):
        return Standing(target=target, caller=refusal.unidentified(caller.reason, caller.message))
    if not target.is_inference:
        return Standing(target=target, caller=caller)
    return Standing(
        target=target,
        caller=caller,
        refused=_refuse(policy, target, received),
        tenant_limit=_limit_without_wait(caller),
    )


def _refuse(policy: Policy, target: Target, received: HeadersReceived) -> Refusal | None:
    if target.model is not None and target.model not in policy.models:
        return refusal.unknown_model(target.model)
    if target.operation is Operation.COUNT_TOKENS:
        return refusal.not_served("protocol_not_served", _NO_COUNTING)
    if not is_served(policy, target):
        return refusal.not_served("protocol_not_served", "No model is served over this API.")
    if not is_readable(received.headers):
        return refusal.bad_request(UNREADABLE, ENCODING_HEADER, 415)
    if received.is_end:
        return refusal.bad_request("The request has no body; a JSON object is expected.")
    if received.is_duplex and target.operation is not Operation.STREAM_INFER:
        return refusal.bad_request(HAS_TO_BUFFER)
    return None


def _limit_without_wait(identity: Identity) -> int | None:
    """The tenant's own limit, where its tier would not let a request wait for it; one of 0 is never waited for."""
    limit = tenant_concurrency(identity)
    return None if limit and Rung.QUEUE in identity.tier.on_overload else limit
