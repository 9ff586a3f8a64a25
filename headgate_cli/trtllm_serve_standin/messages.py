"""`/v1/messages`: Anthropic's messages in, a message of content blocks out."""

from __future__ import annotations

from collections.abc import Sequence as Series
from dataclasses import dataclass
from http import HTTPStatus

from headgate_cli.trtllm_serve_standin.answer import FinishReason
from headgate_cli.trtllm_serve_standin.chat import ChatDialect
from headgate_cli.trtllm_serve_standin.dialect import Identity, named_sse, usage_of
from headgate_cli.trtllm_serve_standin.generation import Delta
from headgate_cli.trtllm_serve_standin.prompt import Prompt
from headgate_cli.trtllm_serve_standin.refusal import Refusal
from headgate_cli.trtllm_serve_standin.request import ChatRequest
from headgate_cli.trtllm_serve_standin.response import Usage
from headgate_cli.trtllm_serve_standin.sequence import Sequence

_STOP_REASONS = {FinishReason.STOP: "end_turn", FinishReason.LENGTH: "max_tokens"}


@dataclass(frozen=True, slots=True)
class MessagesDialect:
    """A messages request, as the chat it amounts to, and how its answer is written."""

    request: ChatRequest
    identity: Identity

    def prompts(self) -> list[Prompt]:
        """Return the one prompt the system text and the messages make up."""
        return ChatDialect(self.request, self.identity).prompts()

    def opening(self, usage: Usage | None) -> list[bytes]:  # noqa: ARG002  (only chat has running usage)
        """Return the events that open the message and its one block of text."""
        [prompt] = self.prompts()
        message = self._message([], None, {"input_tokens": prompt.tokens, "output_tokens": 0})
        return [
            named_sse({"type": "message_start", "message": message}),
            named_sse({"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}),
        ]

    def event(self, delta: Delta, usage: Usage | None) -> bytes:  # noqa: ARG002
        """Return the event for one new token."""
        text = {"type": "text_delta", "text": delta.text}
        return named_sse({"type": "content_block_delta", "index": 0, "delta": text})

    def usage_event(self, usage: Usage) -> bytes:  # noqa: ARG002
        """Return nothing: usage comes with the end of the message."""
        return b""

    def closing(self, sequences: Series[Sequence]) -> bytes:
        """Return the events that close the block and the message."""
        [sequence] = sequences
        delta = {"stop_reason": _STOP_REASONS[sequence.answer.finish_reason], "stop_sequence": None}
        usage = {"output_tokens": sequence.answer.tokens}
        return b"".join(
            (
                named_sse({"type": "content_block_stop", "index": 0}),
                named_sse({"type": "message_delta", "delta": delta, "usage": usage}),
                named_sse({"type": "message_stop"}),
            )
        )

    def whole(self, sequences: Series[Sequence], usage: Usage) -> object:  # noqa: ARG002
        """Return the body of an answer that is not streamed."""
        [sequence] = sequences
        counted = usage_of(sequences, 1)
        tokens = {
            "input_tokens": counted.prompt_tokens,
            "output_tokens": counted.completion_tokens,
            "cache_read_input_tokens": counted.prompt_tokens_details.cached_tokens,
        }
        block = {"type": "text", "text": "".join(sequence.answer.pieces)}
        return self._message([block], _STOP_REASONS[sequence.answer.finish_reason], tokens)

    def _message(self, content: list[object], stop_reason: str | None, usage: object) -> dict[str, object]:
        return {
            "id": self.identity.id,
            "type": "message",
            "role": "assistant",
            "model": self.request.model,
            "content": content,
            "stop_reason": stop_reason,
            "stop_sequence": None,
            "usage": usage,
        }


def error_body(refusal: Refusal) -> object:
    """What a client of this API reads when it is refused."""
    is_missing = refusal.status is HTTPStatus.NOT_FOUND
    kind = "not_found_error" if is_missing else "invalid_request_error"
    return {"type": "error", "error": {"type": kind, "message": refusal.message}}
