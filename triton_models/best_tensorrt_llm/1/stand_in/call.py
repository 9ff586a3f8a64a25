"""One client request at the engine: what it asked for, and its answers as TensorRT-LLM's tensors.

Knows tensors; nothing of threads, slots or other requests.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils

from stand_in import tokenizer
from stand_in.batcher import RequestRefused
from stand_in.generation import Generation
from stand_in.story import story_for
from stand_in.tensors import int32, phrases, scalar, token_ids

_FINAL = pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL


@dataclass(frozen=True, kw_only=True)
class Wishes:
    """The optional outputs a client asked for. What it did not ask for is not sent, as with the real engine."""

    num_input_tokens: bool
    num_output_tokens: bool
    log_probs: bool
    perf_metrics: bool


@dataclass(eq=False, kw_only=True)
class Call:
    """A request and where its answers go. Times are nanoseconds of the monotonic clock, 0 until they happen."""

    request_id: str
    sender: Any
    generation: Generation
    prompt: list[int]
    is_streaming: bool
    echoes_prompt: bool
    wishes: Wishes
    arrival_ns: int
    scheduled_ns: int = 0
    first_token_ns: int = 0
    sent_tokens: int = 0
    is_stopped: bool = False

    @classmethod
    def from_request(cls, request: Any, sender: Any, *, echoes_prompt: bool) -> Call:
        """Read the engine's input tensors. `echoes_prompt` is the model's default, the request may say otherwise.

        Raises:
            RequestRefused: it asks for beams, several sequences or logits, which the stand-in does not have.
        """
        _refuse_unsupported(request)
        prompt = token_ids(request, "input_ids")[: scalar(request, "input_lengths")]
        is_streaming = bool(scalar(request, "streaming", default=False))
        excludes_prompt = scalar(request, "exclude_input_in_output", default=not echoes_prompt)
        return cls(
            request_id=request.request_id(),
            sender=sender,
            generation=_generation_of(request, prompt),
            prompt=prompt,
            is_streaming=is_streaming,
            echoes_prompt=not is_streaming and not excludes_prompt,
            wishes=_wishes_of(request),
            arrival_ns=time.monotonic_ns(),
        )

    @property
    def has_left(self) -> bool:
        """Whether the client cancelled, went away, or asked for `stop`."""
        return self.is_stopped or bool(self.sender.is_cancelled())

    def answer(self) -> None:
        """Send what is due after a step: in a stream the new token, otherwise everything once at the end."""
        generation = self.generation
        if generation.output:
            self.first_token_ns = self.first_token_ns or time.monotonic_ns()
        fresh = generation.output[self.sent_tokens :]
        self.sent_tokens = len(generation.output) if self.is_streaming else 0
        flags = _FINAL if generation.is_finished else 0
        if self.is_streaming and not fresh:
            self.sender.send(flags=flags)
        elif self.is_streaming or generation.is_finished:
            self.sender.send(pb_utils.InferenceResponse(list(self._tensors(fresh))), flags=flags)

    def _tensors(self, fresh: list[int]) -> Iterator[Any]:
        ids = self.prompt + fresh if self.echoes_prompt else fresh
        yield int32("output_ids", [ids or [tokenizer.PAD_ID]])
        yield int32("sequence_length", [len(ids)])
        if self.wishes.num_input_tokens:
            yield int32("num_input_tokens", [len(self.prompt)])
        if self.wishes.num_output_tokens:
            # The real engine counts the tokens of this response: one in a stream, prompt included when it is echoed.
            yield int32("num_output_tokens", [len(ids)])
        if self.wishes.log_probs:
            yield from _certain(len(ids))
        if self.wishes.perf_metrics:
            yield from self._timing()

    def _timing(self) -> Iterator[Any]:
        times = {
            "arrival_time_ns": self.arrival_ns,
            "first_scheduled_time_ns": self.scheduled_ns,
            "first_token_time_ns": self.first_token_ns,
            "last_token_time_ns": time.monotonic_ns(),
        }
        for name, nanoseconds in times.items():
            yield pb_utils.Tensor(name, np.array([[nanoseconds]], dtype=np.int64))


def _refuse_unsupported(request: Any) -> None:
    for name in ("beam_width", "num_return_sequences"):
        if scalar(request, name, default=1) != 1:
            raise RequestRefused(f"{name} must be 1, the engine was built without beams")
    for name in ("return_context_logits", "return_generation_logits"):
        if scalar(request, name, default=False):
            raise RequestRefused(f"{name} is not available, the engine was built without logits")


def _generation_of(request: Any, prompt: list[int]) -> Generation:
    return Generation(
        prompt_tokens=len(prompt),
        max_output_tokens=scalar(request, "request_output_len"),
        words=story_for(prompt, scalar(request, "seed", default=0)),
        end_id=scalar(request, "end_id", default=tokenizer.END_ID),
        stop_words=phrases(request, "stop_words_list"),
        bad_words=phrases(request, "bad_words_list"),
    )


def _wishes_of(request: Any) -> Wishes:
    return Wishes(
        num_input_tokens=bool(scalar(request, "return_num_input_tokens", default=False)),
        num_output_tokens=bool(scalar(request, "return_num_output_tokens", default=False)),
        log_probs=bool(scalar(request, "return_log_probs", default=False)),
        perf_metrics=bool(scalar(request, "return_perf_metrics", default=False)),
    )


def _certain(tokens: int) -> Iterator[Any]:
    # The stand-in never samples: each token has probability one, so every log probability is zero.
    yield pb_utils.Tensor("cum_log_probs", np.zeros((1, 1), dtype=np.float32))
    yield pb_utils.Tensor("output_log_probs", np.zeros((1, 1, tokens), dtype=np.float32))
