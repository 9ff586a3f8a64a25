"""A request body as it is read and edited: decompressed, and out of its gRPC frame; and back on the wire."""

from __future__ import annotations

from extproc.headers import Headers
from extproc.inspection.compression import ENCODINGS, decompress
from extproc.inspection.grpc_frames import framed, only_message
from extproc.inspection.target import Target
from headgate.policy.model import Protocol

ENCODING_HEADER = "content-encoding"
GRPC_ENCODING_HEADER = "grpc-encoding"
_KSERVE_GRPC = Protocol.KSERVE_GRPC
_READABLE = frozenset({"", "identity", *ENCODINGS})


def is_readable(headers: Headers) -> bool:
    """Whether the body's compression, if any, can be undone."""
    return _encoding(headers) in _READABLE


def is_compressed(headers: Headers) -> bool:
    """Whether the body as a whole is compressed; gRPC compresses message by message instead."""
    return _encoding(headers) not in ("", "identity")


def plain_body(target: Target, headers: Headers, body: bytes, limit_bytes: int) -> bytes:
    """What a body says: JSON, or one protobuf message.

    Raises:
        RequestError: 413 when that is longer than the limit, 400 or 415 when it cannot be had.
    """
    if target.protocol is _KSERVE_GRPC:
        return only_message(body, headers.get(GRPC_ENCODING_HEADER), limit_bytes)
    return decompress(body, _encoding(headers), limit_bytes) if headers.get(ENCODING_HEADER) else body


def wire_body(target: Target, plain: bytes) -> bytes:
    """What is sent for it; never compressed."""
    return framed(plain) if target.protocol is _KSERVE_GRPC else plain


def _encoding(headers: Headers) -> str:
    return headers.get(ENCODING_HEADER).strip().lower()
