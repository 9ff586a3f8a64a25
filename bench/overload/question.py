"""The bytes of one request: a chat completion whose prompt is made-up text of the trace's length."""

from __future__ import annotations

import json

from bench.overload.mix import api_key
from bench.overload.simulated_answer import LENGTHS_HEADER
from bench.overload.workload import Arrival

MODEL = "assistant"
_BYTES_PER_TOKEN = 4.5  # of English prose, and of Headgate's estimate
_SENTENCE = "the other end of the line waits for a turn and then says what there is to say "


def question(arrival: Arrival) -> bytes:
    """Head and body; every client streams."""
    body = json.dumps(
        {
            "model": MODEL,
            "messages": [{"role": "user", "content": _text(arrival.prompt_tokens)}],
            "max_tokens": arrival.max_tokens,
            "stream": True,
        }
    ).encode()
    lines = {
        "host": "bench",
        "authorization": f"Bearer {api_key(arrival.tenant)}",
        "content-type": "application/json",
        "user-agent": "headgate-bench",
        LENGTHS_HEADER: f"{arrival.number} {arrival.prompt_tokens} {arrival.answer_tokens}",
        "content-length": str(len(body)),
    }
    head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    return f"POST /v1/chat/completions HTTP/1.1\r\n{head}\r\n".encode() + body


def _text(tokens: int) -> str:
    wanted = int(tokens * _BYTES_PER_TOKEN)
    return (_SENTENCE * (wanted // len(_SENTENCE) + 1))[:wanted]
