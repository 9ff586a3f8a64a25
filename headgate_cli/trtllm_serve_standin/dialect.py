"""What the generating endpoints have in common: a request becomes sequences, their tokens become a body or events.

The dialects are `chat`, `completion`, `responses` and `messages`; how they travel over HTTP is the business of `reply`.
"""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence as Series
from dataclasses import dataclass
from http import HTTPStatus
from typing import Protocol

import msgspec

from headgate_cli.trtllm_serve_standin.answer import Sampling, compose
from headgate_cli.trtllm_serve_standin.engine import EngineLimits
from headgate_cli.trtllm_serve_standin.generation import Delta
from headgate_cli.trtllm_serve_standin.prompt import Prompt
from headgate_cli.trtllm_serve_standin.refusal import Refusal
from headgate_cli.trtllm_serve_standin.request import ChatRequest, CompletionRequest
from headgate_cli.trtllm_serve_standin.response import PromptTokensDetails, Usage
from headgate_cli.trtllm_serve_standin.scheduler import Job
from headgate_cli.trtllm_serve_standin.sequence import Sequence


@dataclass(frozen=True, slots=True)
class Identity:
    """What every chunk of one answer repeats: its id and its creation time in whole Unix seconds."""

    id: str
    created: int


class Dialect(Protocol):
    """One request and how its answer is written. Sequences come prompt by prompt, n for each."""

    @property
    def request(self) -> ChatRequest | CompletionRequest:
        """The request that is answered."""

    def prompts(self) -> list[Prompt]:
        """Return the prompts of the request."""

    def opening(self, usage: Usage | None) -> list[bytes]:
        """Return the events that come before the first token, and together with it."""

    def event(self, delta: Delta, usage: Usage | None) -> bytes:
        """Return the event for one new token."""

    def usage_event(self, usage: Usage) -> bytes:
        """Return the event that only carries usage."""

    def closing(self, sequences: Series[Sequence]) -> bytes:
        """Return what ends a stream that ran to its end."""

    def whole(self, sequences: Series[Sequence], usage: Usage) -> object:
        """Return the body of an answer that is not streamed."""


def plan(dialect: Dialect, limits: EngineLimits, answer_tokens: int) -> list[Job]:
    """Return what the engine has to do for a request; `Refusal` (400) if a prompt leaves no room for an answer."""
    request = dialect.request
    jobs: list[Job] = []
    for prompt in dialect.prompts():
        sampling = _sampling(request, prompt, limits)
        jobs += [
            (prompt, compose(prompt, sampling, choice=choice, answer_tokens=answer_tokens))
            for choice in range(request.n)
        ]
    return jobs


def _sampling(request: ChatRequest | CompletionRequest, prompt: Prompt, limits: EngineLimits) -> Sampling:
    room = limits.max_sequence_tokens - prompt.tokens
    if room < 1:
        text = f"prompt of {prompt.tokens} tokens leaves no room in max_seq_len {limits.max_sequence_tokens}"
        raise Refusal(HTTPStatus.BAD_REQUEST, text)
    return Sampling(
        max_tokens=min(request.token_limit or room, room),
        min_tokens=request.min_tokens,
        seed=request.seed or 0,
        stop=request.stops,
        include_stop=request.include_stop_str_in_output,
        ignore_eos=request.ignore_eos,
    )


def usage_of(sequences: Series[Sequence], n: int, completion_tokens: int | None = None) -> Usage:
    """Return the usage of some prompts' sequences; a prompt counts once, whatever n is.

    `completion_tokens` stands in for the whole answers while they are still being made.
    """
    prompts = sequences[::n]
    prompt_tokens = sum(sequence.prompt.tokens for sequence in prompts)
    made = sum(sequence.answer.tokens for sequence in sequences) if completion_tokens is None else completion_tokens
    cached = PromptTokensDetails(sum(sequence.cached_tokens for sequence in prompts))
    return Usage(prompt_tokens, prompt_tokens + made, made, cached)


DONE = b"data: [DONE]\n\n"
"""What ends a stream of OpenAI's older APIs."""


def named_sse(body: Mapping[str, object]) -> bytes:
    """Return a body as one server-sent event named by its `type`."""
    return b"event: " + str(body["type"]).encode() + b"\n" + b"data: " + msgspec.json.encode(body) + b"\n\n"


def sse(body: msgspec.Struct) -> bytes:
    """Return a body as one server-sent event."""
    return b"data: " + msgspec.json.encode(body) + b"\n\n"
