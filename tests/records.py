"""A finished request for tests that need one: a stream that went well, but for what they say of it."""

from __future__ import annotations

from typing import Any

from headgate.record import RequestRecord


def finished(**fields: Any) -> RequestRecord:
    """The record of one."""
    known: dict[str, Any] = {
        "request_id": "r-1",
        "tenant": "acme",
        "tier": "premium",
        "model": "assistant",
        "cluster": "best",
        "protocol": "openai",
        "operation": "chat",
        "verdict": "ADMIT",
        "reason": "",
        "status": 200,
        "details": "via_upstream",
        "duration_seconds": 3.5,
        "first_byte_seconds": 0.25,
        "queue_wait_seconds": 0.0,
        "request_bytes": 700,
        "response_bytes": 2048,
        "attempts": 1,
        "prompt_tokens": 131,
        "output_tokens": 64,
        "cached_tokens": None,
        "estimated_prompt_tokens": 120,
        "charged_tokens": 632,
        "is_stream": True,
        "upstream_sent_seconds": 0.125,
        "last_byte_seconds": 3.4,
    }
    return RequestRecord(**known | fields)
