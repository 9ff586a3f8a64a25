"""`/v1/chat/completions`: messages in, choices with a message out."""

from __future__ import annotations

from collections.abc import Sequence as Series
from dataclasses import dataclass
from typing import Any

import msgspec

from headgate_cli.trtllm_serve_standin.dialect import DONE, Identity, sse
from headgate_cli.trtllm_serve_standin.generation import Delta
from headgate_cli.trtllm_serve_standin.prompt import Prompt
from headgate_cli.trtllm_serve_standin.request import ChatRequest, Message
from headgate_cli.trtllm_serve_standin.response import (
    ChatChoice,
    ChatChunk,
    ChatChunkChoice,
    ChatCompletion,
    ChatDelta,
    ChatMessage,
    Usage,
)
from headgate_cli.trtllm_serve_standin.sequence import Sequence


@dataclass(frozen=True, slots=True)
class ChatDialect:
    """A chat request and how its answer is written."""

    request: ChatRequest
    identity: Identity

    def prompts(self) -> list[Prompt]:
        """Return the one prompt the messages and tools make up."""
        if self.request.prompt_token_ids:
            return [Prompt.from_token_ids(self.request.prompt_token_ids)]
        turns = [f"<|{message.role}|>{_text(message)}\n" for message in self.request.messages]
        tools = [_json(tool) for tool in self.request.tools or ()]
        return [Prompt.from_text("".join([*tools, *turns, "<|assistant|>"]))]

    def opening(self, usage: Usage | None) -> list[bytes]:
        """Return one event per choice that gives its role."""
        events = [self._chunk(index, ChatDelta(role=self._role), usage) for index in range(self.request.n)]
        # The real one ends these, and only these, with a space before the blank line: parsers have to bear it.
        return [event[:-2] + b" \n\n" for event in events]

    def event(self, delta: Delta, usage: Usage | None) -> bytes:
        """Return the event for one new token."""
        content = ChatDelta(content=delta.text, reasoning_content="")
        return self._chunk(delta.sequence_index, content, usage, delta.finish_reason, delta.stop_reason)

    def usage_event(self, usage: Usage) -> bytes:
        """Return the event that only carries usage."""
        return sse(self._event([], usage))

    def closing(self, sequences: Series[Sequence]) -> bytes:  # noqa: ARG002  (others report usage here)
        """Return the end of the stream."""
        return DONE

    def whole(self, sequences: Series[Sequence], usage: Usage) -> ChatCompletion:
        """Return the body of an answer that is not streamed."""
        return ChatCompletion(
            id=self.identity.id,
            created=self.identity.created,
            model=self.request.model,
            choices=[self._choice(index, sequence) for index, sequence in enumerate(sequences)],
            usage=usage,
        )

    @property
    def _role(self) -> str:
        return "assistant" if self.request.add_generation_prompt else self.request.messages[-1].role

    def _choice(self, index: int, sequence: Sequence) -> ChatChoice:
        answer = sequence.answer
        return ChatChoice(
            index=index,
            message=ChatMessage(role=self._role, content="".join(answer.pieces)),
            finish_reason=answer.finish_reason,
            stop_reason=answer.stop_reason,
        )

    def _chunk(
        self,
        index: int,
        delta: ChatDelta,
        usage: Usage | None,
        finish_reason: str | None = None,
        stop_reason: str | None = None,
    ) -> bytes:
        choice = ChatChunkChoice(index=index, delta=delta, finish_reason=finish_reason, stop_reason=stop_reason)
        return sse(self._event([choice], usage))

    def _event(self, choices: list[ChatChunkChoice], usage: Usage | None) -> ChatChunk:
        return ChatChunk(
            id=self.identity.id,
            object="chat.completion.chunk",
            created=self.identity.created,
            model=self.request.model,
            choices=choices,
            usage=usage,
        )


def _text(message: Message) -> str:
    """Return what a message counts for: its text, `<|type|>` for any other part, tool calls as JSON."""
    content = message.content or ""
    parts = [content] if isinstance(content, str) else [_part(part) for part in content]
    return "".join([*parts, *map(_json, message.tool_calls or ())])


def _part(part: str | dict[str, Any]) -> str:
    if isinstance(part, str):
        return part
    text = part.get("text")
    return text if isinstance(text, str) else f"<|{part.get('type')}|>"


def _json(value: Any) -> str:
    return msgspec.json.encode(value).decode()
