"""What a refused client reads: a body in its own protocol's error format, and when to come back.

Only the domain `headgate` speaks to clients; what it may say of a limit is all in the verdict.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass

from ratelimit.limits import Code, Limit, RateLimitRequest, Status, Verdict
from ratelimit.reply import Reply
from ratelimit.tenants import PROTOCOL_KEY, TENANT_KEY, Budget

_PLAIN_REASON = "rate_limit"
_GRPC = "kserve_grpc"
_MAX_RETRY_AFTER_SECONDS = 120.0
"""openai-python does not retry at all when told to wait longer."""


@dataclass(frozen=True, slots=True)
class _Cause:
    """The limit that stands in the way longest."""

    status: Status
    limit: Limit
    tenant: str

    @property
    def reason(self) -> str:
        return self.limit.name or _PLAIN_REASON

    @property
    def is_hopeless(self) -> bool:
        """Whether the request is larger than the whole limit, so that no wait helps."""
        return self.status.hits > self.limit.requests_per_unit

    @property
    def is_final(self) -> bool:
        """Whether trying again by itself is no help: the client's own code has to decide what its tokens go to."""
        return self.is_hopeless or self.reason == Budget.TOKENS.reason

    @property
    def decision(self) -> str:
        return f"reject; reason={self.reason}"

    @property
    def wait_seconds(self) -> float:
        return min(self.status.reset_seconds or 0.0, _MAX_RETRY_AFTER_SECONDS)

    @property
    def message(self) -> str:
        what = self.reason.replace("_", " ")
        limit = self.limit.requests_per_unit
        used = limit - self.status.remaining
        subject = f" for tenant {self.tenant}" if self.tenant else ""
        text = f"Rate limit reached{subject} on {what}: limit {limit}, used {used}, requested {self.status.hits}."
        if self.is_hopeless:
            return f"{text} This request alone exceeds the limit."
        return f"{text} Please try again in {_whole_seconds(self.wait_seconds)}s."


def refusal(request: RateLimitRequest, verdict: Verdict) -> Reply | None:
    """What a client of the tenant domain is told; None when the verdict refuses nothing."""
    cause = _cause(request, verdict)
    if cause is None:
        return None
    protocol = _first_value(request, PROTOCOL_KEY)
    return Reply(
        body=_body(cause, protocol),
        headers=_grpc_headers(cause) if protocol == _GRPC else _headers(cause),
        metadata={
            "verdict": "REJECT",
            "reason": cause.reason,
            "limit": cause.limit.requests_per_unit,
            "decision": cause.decision,
        },
    )


def _cause(request: RateLimitRequest, verdict: Verdict) -> _Cause | None:
    if verdict.code is Code.OK:
        return None
    tenant = _first_value(request, TENANT_KEY)
    causes = [
        _Cause(status, status.limit, tenant)
        for status in verdict.statuses
        if status.code is Code.OVER_LIMIT and status.limit is not None
    ]
    return max(causes, key=lambda cause: (cause.is_hopeless, cause.wait_seconds), default=None)


def _body(cause: _Cause, protocol: str) -> bytes:
    if protocol == _GRPC:
        return cause.message.encode()
    if protocol == "triton":
        return json.dumps({"error": cause.message}).encode()
    if protocol == "anthropic":
        return json.dumps({"type": "error", "error": {"type": "rate_limit_error", "message": cause.message}}).encode()
    kind = Budget.TOKENS if cause.reason == Budget.TOKENS.reason else Budget.REQUESTS
    error = {"message": cause.message, "type": kind, "param": None, "code": "rate_limit_exceeded"}
    return json.dumps({"error": error}).encode()


def _headers(cause: _Cause) -> tuple[tuple[str, str], ...]:
    headers = (
        ("content-type", "application/json"),
        ("retry-after", str(_whole_seconds(cause.wait_seconds))),
        ("retry-after-ms", str(max(1, math.ceil(cause.wait_seconds * 1000)))),
        ("x-headgate-decision", cause.decision),
    )
    # OpenAI's clients obey this header before retry-after.
    return (*headers, ("x-should-retry", "false")) if cause.is_final else headers


def _grpc_headers(cause: _Cause) -> tuple[tuple[str, str], ...]:
    # The type of a gRPC response is Envoy's to set; a pushback below zero means never (gRFC A6).
    milliseconds = -1 if cause.is_final else max(1, math.ceil(cause.wait_seconds * 1000))
    return (
        ("retry-after", str(_whole_seconds(cause.wait_seconds))),
        ("grpc-retry-pushback-ms", str(milliseconds)),
        ("x-headgate-decision", cause.decision),
    )


def _first_value(request: RateLimitRequest, key: str) -> str:
    entries = (entry for descriptor in request.descriptors for entry in descriptor.entries)
    return next((entry.value for entry in entries if entry.key == key), "")


def _whole_seconds(seconds: float) -> int:
    return max(1, math.ceil(seconds))
