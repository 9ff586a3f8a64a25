"""What the simulated server reads and writes: an OpenAI chat completion, streamed or whole, with made-up text.

Every piece of a stream carries `usage`, as vLLM's continuous usage does, so that a client can count tokens although
only a few pieces are written.
"""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from bench.overload.http_head import Head
from bench.overload.simulated_engine import SimulatedSequence, flush_points

SERVER_HEADER = "headgate-bench-simulation (no GPU, no model, made-up text)"
LENGTHS_HEADER = "x-simulation"
"""`NUMBER PROMPT_TOKENS ANSWER_TOKENS`: what a real engine would find out by itself."""

STREAM_HEAD = (
    f"HTTP/1.1 200 OK\r\nserver: {SERVER_HEADER}\r\ncontent-type: text/event-stream\r\n"
    "cache-control: no-cache\r\ntransfer-encoding: chunked\r\n\r\n"
).encode()
DONE = b"data: [DONE]\n\n"


class _Body(msgspec.Struct):
    stream: bool | None = None
    max_tokens: int | None = None
    max_completion_tokens: int | None = None


_BODY = msgspec.json.Decoder(_Body)


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """One request, understood."""

    number: int
    prompt_tokens: int
    answer_tokens: int
    limit_tokens: int
    is_streamed: bool

    @classmethod
    def read(cls, head: Head, body: bytes) -> Wanted:
        """Understand a request.

        Raises:
            ValueError: it is malformed, or has no `x-simulation` header.
        """
        asked = _BODY.decode(body)
        lengths = head.headers.get(LENGTHS_HEADER.encode(), b"").split()
        if len(lengths) != 3:
            raise ValueError(f"this is a simulation: it needs a header {LENGTHS_HEADER}: NUMBER PROMPT ANSWER")
        number, prompt_tokens, answer_tokens = (int(part) for part in lengths)
        limit = asked.max_completion_tokens or asked.max_tokens or answer_tokens
        return cls(
            number=number,
            prompt_tokens=prompt_tokens,
            answer_tokens=min(answer_tokens, limit),
            limit_tokens=limit,
            is_streamed=bool(asked.stream),
        )

    def sequence(self, now: float) -> SimulatedSequence:
        """What the engine gets to do."""
        return SimulatedSequence(
            number=self.number,
            prompt_tokens=self.prompt_tokens,
            answer_tokens=self.answer_tokens,
            limit_tokens=self.limit_tokens,
            arrived_at=now,
            flushes=flush_points(self.answer_tokens),
        )


def piece(sequence: SimulatedSequence) -> bytes:
    """One SSE event: the tokens since the last."""
    reason = _finish_reason(sequence) if sequence.ended_at is not None else None
    choice = {"index": 0, "delta": {"content": "word "}, "finish_reason": reason}
    event = {"object": "chat.completion.chunk", "model": "simulation", "choices": [choice], "usage": _usage(sequence)}
    return b"data: %s\n\n" % msgspec.json.encode(event)


def whole(sequence: SimulatedSequence) -> bytes:
    """The JSON document of an answer that is not streamed."""
    message = {"role": "assistant", "content": "word " * sequence.produced_tokens}
    choice = {"index": 0, "message": message, "finish_reason": _finish_reason(sequence)}
    return msgspec.json.encode({"object": "chat.completion", "choices": [choice], "usage": _usage(sequence)})


def reply(status: str, body: bytes) -> bytes:
    """A JSON response, head and all."""
    head = f"HTTP/1.1 {status}\r\nserver: {SERVER_HEADER}\r\ncontent-type: application/json\r\n"
    return f"{head}content-length: {len(body)}\r\n\r\n".encode() + body


def chunk(data: bytes) -> bytes:
    """Data as one chunk of HTTP/1.1's chunked coding; empty data ends the body."""
    return b"%x\r\n%s\r\n" % (len(data), data)


def _finish_reason(sequence: SimulatedSequence) -> str:
    return "stop" if sequence.answer_tokens < sequence.limit_tokens else "length"


def _usage(sequence: SimulatedSequence) -> dict[str, int]:
    return {
        "prompt_tokens": sequence.prompt_tokens,
        "completion_tokens": sequence.produced_tokens,
        "total_tokens": sequence.prompt_tokens + sequence.produced_tokens,
    }
