"""A whole request body, read from Envoy's message: what stands around it follows from the message's length alone."""

from __future__ import annotations

import functools

from extproc.events import BodyReceived
from extproc.wire_format import head, tag_of
from headgate.pb import ext_proc_pb2 as pb

_REQUEST_BODY, _BODY = (tag_of(pb.ProcessingRequest, "request_body"),), (tag_of(pb.HttpBody, "body"),)
_IS_END = pb.HttpBody(end_of_stream=True).SerializeToString()
_AFTER = _IS_END + pb.ProcessingRequest(metadata_context=pb.Metadata()).SerializeToString()
_MOST_BEFORE = 2 * (1 + 5)
"""Bytes: two tags, and two lengths below 2 GiB."""


def read_body(message: bytes) -> BodyReceived | None:
    """Read a `ProcessingRequest`; None for one that has to be read as a whole, as it may hold something else."""
    before = _before(len(message))
    if before is None or not (message.startswith(before) and message.endswith(_AFTER)):
        return None
    return BodyReceived(message[len(before) : -len(_AFTER)], True)


@functools.lru_cache(maxsize=4096)
def _before(message_bytes: int) -> bytes | None:
    """What a message of this length begins with that brings a body and nothing else; None where none is so long."""
    room = message_bytes - len(_AFTER)
    for body_bytes in range(max(0, room - _MOST_BEFORE), room):
        inner = head(_BODY, body_bytes)
        before = head(_REQUEST_BODY, len(inner) + body_bytes + len(_IS_END)) + inner
        if len(before) + body_bytes == room:
            return before
    return None
