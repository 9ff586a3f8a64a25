"""What the header block of a call says: HTTP's rules for requests (RFC 9113, 8), then gRPC's.

A head is a value: it is parsed once and shared by every stream that begins with the same block.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterable
from dataclasses import dataclass

from headgate.transport import Metadata
from headgate.transport.lean.timeouts import parse_timeout

HeaderList = Iterable[tuple[bytes, bytes]]

_PSEUDO_NAMES = frozenset((b":method", b":scheme", b":path", b":authority"))
_REQUIRED = (b":method", b":scheme", b":path")
_CONNECTION_NAMES = frozenset((b"connection", b"keep-alive", b"proxy-connection", b"transfer-encoding", b"upgrade"))
_NAME = re.compile(rb"[!#$%&'*+\-.^_`|~0-9a-z]+")
_CONTENT_TYPE = re.compile(rb"application/grpc(?:[+;].*)?")
_NOT_IN_VALUES = re.compile(rb"[\x00\r\n]")
_PROTOCOL_NAMES = frozenset(
    (b"content-type", b"te", b"grpc-timeout", b"grpc-encoding", b"grpc-accept-encoding", b"content-length")
)


class MalformedHead(Exception):  # noqa: N818  (RFC 9113, 8.1.1: a malformed request)
    """Raised when a header block is no request, or trailers are none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestHead:
    """The start of one call.

    Attributes:
        path: `/package.Service/Method`.
        http_status: 200 for a gRPC call, else the status that says why it is none.
        timeout_seconds: None without a deadline.
        is_timeout_valid: False when there is a deadline nobody can read.
        encoding: how its compressed messages are compressed.
    """

    path: str
    http_status: int
    timeout_seconds: float | None
    is_timeout_valid: bool
    encoding: str
    content_length: int | None
    metadata: Metadata


def parse_head(headers: HeaderList) -> RequestHead:
    """Read the headers of a request.

    Raises:
        MalformedHead: they break a rule of HTTP/2.
    """
    pseudo: dict[bytes, bytes] = {}
    regular: list[tuple[bytes, bytes]] = []
    for name, value in headers:
        if name[:1] == b":":
            if regular or name in pseudo or name not in _PSEUDO_NAMES:
                raise MalformedHead(f"a pseudo-header out of place: {name!r}")
            pseudo[name] = value
        else:
            _check_regular(name, value)
            regular.append((name, value))
    if not all(pseudo.get(name) for name in _REQUIRED):
        raise MalformedHead(":method, :scheme and :path have to be there")
    return _head(pseudo, regular)


def check_trailers(headers: HeaderList) -> None:
    """Accept the trailers of a request, of which gRPC makes no use.

    Raises:
        MalformedHead: they break a rule of HTTP/2.
    """
    for name, value in headers:
        _check_regular(name, value)


def _check_regular(name: bytes, value: bytes) -> None:
    if not _NAME.fullmatch(name) or name in _CONNECTION_NAMES or _NOT_IN_VALUES.search(value):
        raise MalformedHead(f"not a header of HTTP/2: {name!r}")
    if name == b"te" and value.lower() != b"trailers":
        raise MalformedHead("te may only say trailers")


def _head(pseudo: dict[bytes, bytes], regular: list[tuple[bytes, bytes]]) -> RequestHead:
    # The first of several: what a second one says is not believed.
    known = dict(reversed(regular))
    timeout = known.get(b"grpc-timeout")
    timeout_seconds = None if timeout is None else parse_timeout(timeout)
    return RequestHead(
        path=pseudo[b":path"].decode("latin-1"),
        http_status=_http_status(pseudo[b":method"], known.get(b"content-type", b"")),
        timeout_seconds=timeout_seconds,
        is_timeout_valid=timeout is None or timeout_seconds is not None,
        encoding=known.get(b"grpc-encoding", b"identity").decode("latin-1"),
        content_length=_content_length(known.get(b"content-length")),
        metadata=tuple(_metadatum(name, value) for name, value in regular if name not in _PROTOCOL_NAMES),
    )


def _http_status(method: bytes, content_type: bytes) -> int:
    if not _CONTENT_TYPE.fullmatch(content_type):
        return 415
    return 200 if method == b"POST" else 405


def _content_length(value: bytes | None) -> int | None:
    if value is None:
        return None
    if not value.isdigit() or len(value) > 18:
        raise MalformedHead("content-length is no number")
    return int(value)


def _metadatum(name: bytes, value: bytes) -> tuple[str, str | bytes]:
    text = name.decode("ascii")
    if not text.endswith("-bin"):
        return text, value.decode("latin-1")
    try:
        return text, base64.b64decode(value + b"=" * (-len(value) % 4), validate=True)
    except binascii.Error:
        return text, value
