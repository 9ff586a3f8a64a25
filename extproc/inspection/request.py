"""One inference request, whatever protocol it came in."""

from __future__ import annotations

from typing import Protocol as Interface

import msgspec

from extproc.inspection.target import Operation
from headgate.policy.model import Protocol

MAX_OUTPUT_TOKENS = 2**31 - 1
MAX_CHOICES = 128
PREFIX_CHARACTERS = 1024


class RequestError(Exception):
    """Raised when a body is not what its path promises; becomes a 4xx in the client's own format.

    Attributes:
        param: the field at fault, None when it is the body as a whole.
    """

    def __init__(self, message: str, *, param: str | None = None, status: int = 400) -> None:
        self.message = message
        self.param = param
        self.status = status
        super().__init__(message)


class Editable(Interface):
    """A body as read, whose fields can be edited."""

    def fields(self) -> frozenset[str]:
        """Those present that an edit may concern."""


class Prompt(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What a model is to read, as it was sent.

    Attributes:
        size_bytes: all text, in bytes as sent: UTF-8, JSON's escapes as they are written.
        tokens: an estimate, see `extproc.tokens`, of all but images and audio.
        overhead_tokens: the part of them that is no text: the chat template's, or token ids.
        texts: all text, plain or as JSON.
        opening: the first of the texts, as far as they stay the same over the turns of a conversation.
        audio_seconds: how long the audio is, as far as can be told from its size.
    """

    size_bytes: int = 0
    tokens: int = 0
    overhead_tokens: int = 0
    texts: tuple[str | msgspec.Raw, ...] = ()
    opening: tuple[str | msgspec.Raw, ...] = ()
    messages: int = 0
    tools: int = 0
    images: int = 0
    audio_seconds: float = 0.0

    @property
    def prefix(self) -> str:
        """How it begins; JSON's text as it is written."""
        prefix, room = "", PREFIX_CHARACTERS
        for text in self.opening:
            plain = (
                text if isinstance(text, str) else str(memoryview(text)[1:-1][:PREFIX_CHARACTERS], "utf-8", "replace")
            )
            prefix, room = prefix + plain[:room], room - len(plain)
            if room <= 0:
                break
        return prefix


class InferenceRequest(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What decisions know of a request; like all values of the data path it is on no cycle (`gc=False`).

    Attributes:
        prompt: gone once the request is decided on.
        prompt_tokens: the prompt's own, until `extproc.sizing` knows more; images and audio are among them then.
        max_output_tokens: what the client asked for at most, per choice; None when it did not say.
        output_limit_fields: the fields of the body that limit the output.
        are_output_limits_equal: whether each of them says `max_output_tokens`.
        has_output: whether the model generates anything; embeddings do not.
        uncorrected_prompt_tokens: the estimate before what was learned about the model; 0 when it teaches nothing.
        expected_output_tokens: how long an answer is expected to be; None when nothing is known.
        session: what the client says its requests belong together by; empty when it says nothing.
        choices: completions generated side by side (`n` for each prompt); output tokens count that many times.
        service_tier: OpenAI's `service_tier`, as sent; "" when absent.
        edited: the body as read, where it is edited by the names of its fields; gone with the prompt.
        stream_options: OpenAI's `stream_options`, as sent; b"" when absent.
    """

    protocol: Protocol
    model: str
    operation: Operation = Operation.CHAT
    stream: bool = False
    prompt: Prompt = Prompt()
    prompt_tokens: int = 0
    max_output_tokens: int | None = None
    output_limit_fields: tuple[str, ...] = ()
    are_output_limits_equal: bool = True
    has_output: bool = True
    choices: int = 1
    service_tier: str = ""
    edited: Editable | None = None
    stream_options: bytes = b""
    session: str = ""
    uncorrected_prompt_tokens: int = 0
    expected_output_tokens: int | None = None

    @property
    def fields(self) -> frozenset[str]:
        """The fields present that an edit may concern; few edits ask."""
        return frozenset() if self.edited is None else self.edited.fields()


def checked_output_limit(value: int, field: str) -> int:
    """`value` if it can be an output-token limit."""
    if not 1 <= value <= MAX_OUTPUT_TOKENS:
        raise RequestError(f"'{field}' has to be between 1 and {MAX_OUTPUT_TOKENS}, not {value}.", param=field)
    return value
