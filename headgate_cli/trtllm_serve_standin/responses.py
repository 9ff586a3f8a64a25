"""`/v1/responses`: input items in, a response with output items out. Nothing is stored."""

from __future__ import annotations

from collections.abc import Sequence as Series
from dataclasses import dataclass

from headgate_cli.trtllm_serve_standin.answer import FinishReason
from headgate_cli.trtllm_serve_standin.chat import ChatDialect
from headgate_cli.trtllm_serve_standin.dialect import Identity, named_sse, usage_of
from headgate_cli.trtllm_serve_standin.generation import Delta
from headgate_cli.trtllm_serve_standin.prompt import Prompt
from headgate_cli.trtllm_serve_standin.request import ChatRequest
from headgate_cli.trtllm_serve_standin.response import Usage
from headgate_cli.trtllm_serve_standin.sequence import Sequence


@dataclass(frozen=True, slots=True)
class ResponsesDialect:
    """A responses request, as the chat it amounts to, and how its answer is written.

    Of the events of a stream only those that carry something are here; the real one has a few more.
    """

    request: ChatRequest
    identity: Identity

    def prompts(self) -> list[Prompt]:
        """Return the one prompt the instructions and the input make up."""
        return ChatDialect(self.request, self.identity).prompts()

    def opening(self, usage: Usage | None) -> list[bytes]:  # noqa: ARG002  (only chat has running usage)
        """Return the events that open the response and its one message."""
        part = {"type": "output_text", "text": "", "annotations": []}
        place = {"item_id": self._item_id, "output_index": 0}
        return [
            named_sse({"type": "response.created", "response": self._response("in_progress", [], None)}),
            named_sse({"type": "response.output_item.added", "output_index": 0, "item": self._item([], "in_progress")}),
            named_sse({"type": "response.content_part.added", **place, "content_index": 0, "part": part}),
        ]

    def event(self, delta: Delta, usage: Usage | None) -> bytes:  # noqa: ARG002
        """Return the event for one new token."""
        place = {"item_id": self._item_id, "output_index": 0, "content_index": 0}
        return named_sse({"type": "response.output_text.delta", **place, "delta": delta.text})

    def usage_event(self, usage: Usage) -> bytes:  # noqa: ARG002
        """Return nothing: usage comes with the end of the response."""
        return b""

    def closing(self, sequences: Series[Sequence]) -> bytes:
        """Return the events that close the message and the response."""
        place = {"item_id": self._item_id, "output_index": 0, "content_index": 0}
        text = "".join(sequences[0].answer.pieces)
        response = self.whole(sequences, usage_of(sequences, 1))
        kind = "completed" if response["status"] == "completed" else "incomplete"
        return named_sse({"type": "response.output_text.done", **place, "text": text}) + named_sse(
            {"type": f"response.{kind}", "response": response}
        )

    def whole(self, sequences: Series[Sequence], usage: Usage) -> dict[str, object]:
        """Return the body of an answer that is not streamed."""
        [sequence] = sequences
        is_complete = sequence.answer.finish_reason is FinishReason.STOP
        status = "completed" if is_complete else "incomplete"
        text = {"type": "output_text", "text": "".join(sequence.answer.pieces), "annotations": []}
        return self._response(status, [self._item([text], status)], usage)

    @property
    def _item_id(self) -> str:
        return f"msg_{self.identity.id}"

    def _item(self, content: list[object], status: str) -> dict[str, object]:
        item = {"id": self._item_id, "type": "message", "role": "assistant"}
        return {**item, "status": status, "content": content}

    def _response(self, status: str, output: list[object], usage: Usage | None) -> dict[str, object]:
        return {
            "id": self.identity.id,
            "object": "response",
            "created_at": self.identity.created,
            "status": status,
            "model": self.request.model,
            "output": output,
            "parallel_tool_calls": False,
            "tool_choice": "none",
            "tools": [],
            "incomplete_details": {"reason": "max_output_tokens"} if status == "incomplete" else None,
            "usage": usage and _usage(usage),
        }


def _usage(usage: Usage) -> dict[str, object]:
    return {
        "input_tokens": usage.prompt_tokens,
        "input_tokens_details": {"cached_tokens": usage.prompt_tokens_details.cached_tokens},
        "output_tokens": usage.completion_tokens,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": usage.total_tokens,
    }
