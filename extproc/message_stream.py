"""A gRPC stream both ways, on its way through: its messages as they come, edited like the first, which decided.

The client may wait for an answer before it closes its side, so nothing here waits for the end. One stream is one
request to everybody who counts: it holds one slot from its first message to its end.
"""

from __future__ import annotations

import msgspec

from extproc.identity import Identity
from extproc.infer import infer_changes
from extproc.inspection.grpc_frames import FrameReader, framed
from extproc.inspection.kserve_grpc import edit_message, inspect_message
from extproc.inspection.request import InferenceRequest, RequestError
from extproc.routing import Destination, capped_output_tokens


class Course(msgspec.Struct, frozen=True):
    """What the first message decided for all."""

    identity: Identity
    request: InferenceRequest
    destination: Destination


class MessageStream:
    """Keeps what has come and may not go on yet: up to one body's limit in whole messages, and one in the making."""

    def __init__(self, encoding: str, limit_bytes: int) -> None:
        self._reader = FrameReader(encoding, limit_bytes)
        self._limit_bytes = limit_bytes
        self._messages: list[bytes] = []
        self._held_bytes = 0
        self._is_complete = False

    @property
    def first(self) -> bytes | None:
        """The first message that has not gone on; None as long as it has not come."""
        return self._messages[0] if self._messages else None

    @property
    def is_complete(self) -> bool:
        """Whether the client has closed its side."""
        return self._is_complete

    def feed(self, chunk: bytes, *, is_end: bool) -> None:
        """Take a chunk of the body.

        Raises:
            RequestError: it is not made of messages, one is too long, or too many of them have to be kept.
        """
        messages = self._reader.feed(chunk)
        self._messages += messages
        self._held_bytes += sum(map(len, messages))
        self._is_complete = is_end
        if self._held_bytes > self._limit_bytes:
            raise RequestError("Too much was sent before the first message was decided on.", status=413)
        if is_end and not self._reader.is_at_boundary:
            raise RequestError("The last message of the stream is cut short.")

    def take(self, course: Course) -> bytes:
        """Everything that may go on, as it is to reach the model server.

        Raises:
            RequestError: a message is for another model, or cannot be read.
        """
        messages, self._messages, self._held_bytes = self._messages, [], 0
        return b"".join(framed(_edited(message, course)) for message in messages)


def _edited(message: bytes, course: Course) -> bytes:
    request, destination = inspect_message(message, stream=True), course.destination
    if request.model != course.request.model:
        text = f"This stream is for the model '{course.request.model}'; open another one for others."
        raise RequestError(text, param="model_name")
    tier = course.identity.tier.output_tokens
    limit = capped_output_tokens(request.max_output_tokens, tier, destination.output_cap)
    changes = infer_changes(request, destination, None if limit == request.max_output_tokens else limit)
    if destination.frontend.model == request.model and changes.is_nothing:
        return message
    return edit_message(message, model=destination.frontend.model, changes=changes)
