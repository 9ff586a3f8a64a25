"""One inference request, whatever protocol it came in."""

from __future__ import annotations

import msgspec

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


class InferenceRequest(msgspec.Struct, frozen=True, kw_only=True):
    """What decisions know of a request.

    Attributes:
        prompt_bytes: UTF-8 bytes of all text of the prompt.
        prompt_tokens: an estimate, see `extproc.tokens`.
        max_output_tokens: what the client asked for at most, per choice; None when it did not say.
        output_limit_fields: the fields of the body that limit the output.
        are_output_limits_equal: whether each of them says `max_output_tokens`.
        session: what the client says its requests belong together by; empty when it says nothing.
        prompt_prefix: how the prompt begins, as long as it stays the same over the turns of a conversation.
        choices: completions generated side by side (`n` for each prompt); output tokens count that many times.
    """

    protocol: Protocol
    model: str
    stream: bool = False
    prompt_bytes: int = 0
    prompt_tokens: int = 0
    max_output_tokens: int | None = None
    output_limit_fields: tuple[str, ...] = ()
    are_output_limits_equal: bool = True
    choices: int = 1
    messages: int = 0
    tools: int = 0
    images: int = 0
    session: str = ""
    prompt_prefix: str = ""


def prefix_of(texts: list[str]) -> str:
    """The beginning of a prompt whose first texts these are."""
    prefix, room = "", PREFIX_CHARACTERS
    for text in texts:
        prefix, room = prefix + text[:room], room - len(text)
        if room <= 0:
            break
    return prefix


def checked_output_limit(value: int | None, field: str) -> int | None:
    """`value` if it can be an output-token limit."""
    if value is not None and not 1 <= value <= MAX_OUTPUT_TOKENS:
        raise RequestError(f"'{field}' has to be between 1 and {MAX_OUTPUT_TOKENS}, not {value}.", param=field)
    return value
