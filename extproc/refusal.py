"""How a request is told no: status, machine-readable reason, and a body in the client's own format.

429: there is capacity, but it is contended. 503: there is none. 400, 401, 404, 413, 415: the request itself.
The error objects are those of OpenAI's, Anthropic's and Triton's APIs; the reason is the same string in header, log
and metric.
"""

from __future__ import annotations

import math

import msgspec
from msgspec.structs import replace

from extproc.inspection.compression import ACCEPTED
from extproc.inspection.request import RequestError
from headgate.policy.model import Protocol
from headgate.store import Scope
from headgate.transport import StatusCode

_TURNED_AWAY_MESSAGES = {
    "shutting_down": "The gateway is restarting; retry shortly.",
    "internal_error": "The gateway could not decide on this request; retry shortly.",
}


class Refusal(msgspec.Struct, frozen=True, kw_only=True):
    """A no, and what the client needs to act on it.

    Attributes:
        type: OpenAI's `error.type`.
        code: OpenAI's `error.code`.
        param: the field at fault, if it is one.
        retry_after_seconds: None where a retry cannot help.
    """

    status: int
    reason: str
    message: str
    type: str
    code: str | None
    param: str | None = None
    retry_after_seconds: float | None = None

    def body(self, protocol: Protocol | None) -> bytes:
        """The response body; OpenAI's shape where the protocol is unknown. gRPC's is its status message."""
        if protocol is Protocol.KSERVE_GRPC:
            return self.message.encode()
        if protocol is Protocol.TRITON:
            return msgspec.json.encode({"error": self.message})
        if protocol is Protocol.ANTHROPIC:
            anthropic = {"type": _ANTHROPIC_TYPES.get(self.status, "invalid_request_error"), "message": self.message}
            return msgspec.json.encode({"type": "error", "error": anthropic})
        error = {"message": self.message, "type": self.type, "param": self.param, "code": self.code}
        return msgspec.json.encode({"error": error})

    def headers(self, protocol: Protocol | None) -> dict[str, str]:
        """Response headers; `retry-after` counts whole seconds, `retry-after-ms` is what openai clients read first.

        What gRPC clients read is `grpc-retry-pushback-ms` (gRFC A6); the type of their response is Envoy's to set.
        """
        is_grpc = protocol is Protocol.KSERVE_GRPC
        headers = {} if is_grpc else {"content-type": "application/json"}
        headers["x-headgate-decision"] = f"reject; reason={self.reason}"
        if self.status == 415:
            # RFC 9110, 15.5.16; gRPC's compression document asks for the same under its own name.
            headers["grpc-accept-encoding" if is_grpc else "accept-encoding"] = ACCEPTED
        if self.retry_after_seconds is None:
            # openai clients retry every 429 unless told otherwise.
            no_retry = {"grpc-retry-pushback-ms": "-1"} if is_grpc else {"x-should-retry": "false"}
            return headers | no_retry if self.status == 429 else headers
        milliseconds = max(1, math.ceil(self.retry_after_seconds * 1000))
        headers["retry-after"] = str(max(1, math.ceil(self.retry_after_seconds)))
        headers["grpc-retry-pushback-ms" if is_grpc else "retry-after-ms"] = str(milliseconds)
        return headers

    @property
    def grpc_status(self) -> StatusCode:
        """The status a gRPC client sees."""
        return _GRPC_STATUS.get(self.status, StatusCode.UNKNOWN)


_ANTHROPIC_TYPES = {
    401: "authentication_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
}
MAX_RETRY_AFTER_SECONDS = 120.0
"""openai-python does not retry at all when told to wait longer."""
_CONTENDED = {
    Scope.TENANT: "Your concurrency limit is reached; retry when one of your requests has ended.",
    Scope.TIER: "All slots of your service tier are in use; retry shortly.",
    Scope.CLUSTER: "The model is at capacity; retry shortly.",
    Scope.CLUSTER_TOKENS: "The model is at its token capacity; retry shortly.",
    "queue_full": "The model is at capacity and its queue is full; retry shortly.",
    "queue_too_long": "The model is at capacity and its queue is longer than may be waited for; retry later.",
    "queue_timeout": "The model is at capacity and the wait for it took too long; retry shortly.",
    "client_deadline": "The model is at capacity and the wait for it took as long as the client allows.",
}
_GRPC_STATUS = {
    400: StatusCode.INVALID_ARGUMENT,
    401: StatusCode.UNAUTHENTICATED,
    404: StatusCode.NOT_FOUND,
    413: StatusCode.RESOURCE_EXHAUSTED,
    415: StatusCode.UNIMPLEMENTED,
    429: StatusCode.RESOURCE_EXHAUSTED,
    503: StatusCode.UNAVAILABLE,
}


def unidentified(reason: str, message: str) -> Refusal:
    """Nobody could be named."""
    return Refusal(status=401, reason=reason, message=message, type="invalid_request_error", code="invalid_api_key")


def unknown_model(model: str) -> Refusal:
    """No model of that name in the policy."""
    shown = model if len(model) <= 128 else model[:125] + "..."
    return not_served("unknown_model", f"The model '{shown}' does not exist.")


def not_served(reason: str, message: str) -> Refusal:
    """The model exists, but not for this request."""
    return Refusal(
        status=404,
        reason=reason,
        message=message,
        type="invalid_request_error",
        code="model_not_found",
        param="model",
    )


def bad_request(message: str, param: str | None = None, status: int = 400) -> Refusal:
    """The body is not what its path promises."""
    return Refusal(
        status=status,
        reason="bad_request",
        message=message,
        type="invalid_request_error",
        code=None,
        param=param,
    )


def unreadable(error: RequestError) -> Refusal:
    """The body cannot be read, as `error` says."""
    if error.status == 413:
        return replace(too_large(None, 0), message=error.message)
    return bad_request(error.message, error.param, error.status)


def too_large(size_bytes: int | None, limit_bytes: int) -> Refusal:
    """The body is larger than the tier may send."""
    size = f"of {size_bytes} bytes " if size_bytes is not None else ""
    return Refusal(
        status=413,
        reason="body_too_large",
        message=f"The request body {size}is larger than the {limit_bytes} bytes allowed.",
        type="invalid_request_error",
        code="request_too_large",
    )


def too_long(tokens: int, limit_tokens: int) -> Refusal:
    """Prompt and output together exceed what the cluster can hold even when idle."""
    return Refusal(
        status=400,
        reason="context_too_long",
        message=f"The request needs about {tokens} tokens; at most {limit_tokens} fit.",
        type="invalid_request_error",
        code="context_length_exceeded",
        param="messages",
    )


def contended(reason: str, retry_after_seconds: float | None) -> Refusal:
    """There is capacity, but others hold it now; None where it will not be this client's however long it waits."""
    is_own_limit = reason == Scope.TENANT
    return Refusal(
        status=429,
        reason=reason,
        message=_CONTENDED[reason],
        type="rate_limit_error",
        code="concurrency_limit_exceeded" if is_own_limit else "server_is_overloaded",
        retry_after_seconds=None if retry_after_seconds is None else min(retry_after_seconds, MAX_RETRY_AFTER_SECONDS),
    )


def turned_away(reason: str) -> Refusal:
    """The gateway itself cannot go on: `shutting_down` or `internal_error`."""
    return unavailable(reason, _TURNED_AWAY_MESSAGES[reason])


def unavailable(reason: str, message: str) -> Refusal:
    """There is no capacity at all, or nobody to ask for it."""
    return Refusal(
        status=503,
        reason=reason,
        message=message,
        type="service_unavailable_error",
        code="service_unavailable",
        retry_after_seconds=1.0,
    )
