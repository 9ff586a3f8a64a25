"""What can be refused on the headers alone, before a byte of the body is held."""

from __future__ import annotations

from extproc import refusal
from extproc.admission import tenant_concurrency
from extproc.events import HeadersReceived
from extproc.identity import Identity
from extproc.inspection.compression import UNREADABLE
from extproc.inspection.content import ENCODING_HEADER, is_readable
from extproc.inspection.target import Operation, Target
from extproc.refusal import Refusal
from extproc.routing import Signals, is_served
from headgate.policy.model import Policy, Rung
from headgate.store import Scope

HAS_TO_BUFFER = "Envoy must buffer the request body (request_body_mode BUFFERED)."
_RETRY_AFTER_SECONDS = 1.0
_NO_COUNTING = "Tokens are not counted here without running the model; every answer tells its own usage."


def refuse_early(
    policy: Policy, identity: Identity, target: Target, received: HeadersReceived, signals: Signals
) -> Refusal | None:
    """Why a request that runs a model need not be read; None where its body has to tell."""
    headers = received.headers
    if target.model is not None and target.model not in policy.models:
        return refusal.unknown_model(target.model)
    if target.operation is Operation.COUNT_TOKENS:
        return refusal.not_served("protocol_not_served", _NO_COUNTING)
    if not is_served(policy, target):
        return refusal.not_served("protocol_not_served", "No model is served over this API.")
    size, limit = headers.content_length, identity.tier.max_body_bytes
    if size is not None and size > limit:
        return refusal.too_large(size, limit)
    if not is_readable(headers):
        return refusal.bad_request(UNREADABLE, ENCODING_HEADER, 415)
    if received.is_end:
        return refusal.bad_request("The request has no body; a JSON object is expected.")
    if received.is_duplex and target.operation is not Operation.STREAM_INFER:
        return refusal.bad_request(HAS_TO_BUFFER)
    return _refuse_tenant(identity, signals)


def _refuse_tenant(identity: Identity, signals: Signals) -> Refusal | None:
    """No to a tenant at its own limit, where its tier would not let it wait either."""
    limit = tenant_concurrency(identity)
    if limit is None or (limit and Rung.QUEUE in identity.tier.on_overload):
        return None
    if signals.in_flight(Scope.TENANT, identity.tenant.name) < limit:
        return None
    return refusal.contended(Scope.TENANT, _RETRY_AFTER_SECONDS if limit else None)
