"""`/v1/completions`: one or more prompts in, choices with text out."""

from __future__ import annotations

from collections.abc import Sequence as Series
from dataclasses import dataclass
from http import HTTPStatus

from headgate_cli.trtllm_serve_standin.dialect import DONE, Identity, sse
from headgate_cli.trtllm_serve_standin.generation import Delta
from headgate_cli.trtllm_serve_standin.prompt import Prompt
from headgate_cli.trtllm_serve_standin.refusal import Refusal
from headgate_cli.trtllm_serve_standin.request import CompletionRequest
from headgate_cli.trtllm_serve_standin.response import (
    Completion,
    CompletionChoice,
    CompletionChunk,
    CompletionChunkChoice,
    Usage,
)
from headgate_cli.trtllm_serve_standin.sequence import Sequence


@dataclass(frozen=True, slots=True)
class CompletionDialect:
    """A completion request and how its answer is written."""

    request: CompletionRequest
    identity: Identity

    def prompts(self) -> list[Prompt]:
        """Return the prompts; `Refusal` (400) if token ids are to be echoed as text."""
        if self.request.echo and not all(isinstance(prompt, str) for prompt in self.request.prompts):
            raise Refusal(HTTPStatus.BAD_REQUEST, "echo needs a prompt of text")
        return [
            Prompt.from_text(prompt) if isinstance(prompt, str) else Prompt.from_token_ids(prompt)
            for prompt in self.request.prompts
        ]

    def opening(self, usage: Usage | None) -> list[bytes]:  # noqa: ARG002  (chat has one, this dialect has none)
        """Return nothing: a completion stream begins with its first token."""
        return []

    def event(self, delta: Delta, usage: Usage | None) -> bytes:
        """Return the event for one new token."""
        echo = self._echo(delta.sequence_index) if delta.completion_tokens == 1 else ""
        choice = CompletionChunkChoice(
            index=delta.sequence_index,
            text=echo + delta.text if self.request.detokenize else "",
            token_ids=None if self.request.detokenize else [delta.token_id],
            finish_reason=delta.finish_reason,
            stop_reason=delta.stop_reason,
        )
        return sse(self._event([choice], usage))

    def usage_event(self, usage: Usage) -> bytes:
        """Return the event that only carries usage."""
        return sse(self._event([], usage))

    def closing(self, sequences: Series[Sequence]) -> bytes:  # noqa: ARG002  (others report usage here)
        """Return the end of the stream."""
        return DONE

    def whole(self, sequences: Series[Sequence], usage: Usage) -> Completion:
        """Return the body of an answer that is not streamed."""
        return Completion(
            id=self.identity.id,
            created=self.identity.created,
            model=self.request.model,
            choices=[self._choice(index, sequence) for index, sequence in enumerate(sequences)],
            usage=usage,
        )

    def _echo(self, index: int) -> str:
        prompt = self.request.prompts[index // self.request.n]
        return prompt if self.request.echo and isinstance(prompt, str) else ""

    def _choice(self, index: int, sequence: Sequence) -> CompletionChoice:
        answer = sequence.answer
        return CompletionChoice(
            index=index,
            text=self._echo(index) + "".join(answer.pieces) if self.request.detokenize else "",
            token_ids=None if self.request.detokenize else list(answer.token_ids),
            finish_reason=answer.finish_reason,
            stop_reason=answer.stop_reason,
        )

    def _event(self, choices: list[CompletionChunkChoice], usage: Usage | None) -> CompletionChunk:
        return CompletionChunk(
            id=self.identity.id,
            created=self.identity.created,
            model=self.request.model,
            choices=choices,
            usage=usage,
        )
