"""The one request the benchmark sends over and over: an OpenAI chat completion of about 1 KB."""

from __future__ import annotations

import json
from collections.abc import Mapping

_BODY_BYTES = 1024
_SENTENCE = "The quick brown fox jumps over the lazy dog while the model waits for its turn. "

HOLD_HEADER = "x-bench-hold"
"""Makes the upstream wait before it answers."""


def question(headers: Mapping[str, str] | None = None) -> bytes:
    """The request's bytes, with these headers on top of the usual ones."""
    body = _body()
    lines = {
        "host": "bench",
        "authorization": "Bearer bench",
        "content-type": "application/json",
        "accept": "application/json",
        "user-agent": "headgate-bench",
        "content-length": str(len(body)),
        **(headers or {}),
    }
    head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    return f"POST /v1/chat/completions HTTP/1.1\r\n{head}\r\n".encode() + body


def _body() -> bytes:
    filler = (_SENTENCE * (_BODY_BYTES // len(_SENTENCE) + 1))[: _BODY_BYTES - 180]
    messages = [{"role": "system", "content": "Answer briefly."}, {"role": "user", "content": filler}]
    return json.dumps({"model": "assistant", "messages": messages, "max_tokens": 64, "temperature": 0.7}).encode()
