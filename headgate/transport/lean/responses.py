"""What we answer with besides messages: response headers, trailers with a status, refusals in plain HTTP."""

from __future__ import annotations

from typing import Final
from urllib.parse import quote

from headgate.transport import StatusCode
from headgate.transport.lean.header_blocks import write_headers

_HTTP_OK: Final = b"\x88"  # :status 200, number 8 of the static table (RFC 7541, Appendix A)
_MAX_MESSAGE_CHARACTERS: Final = 1024
# Space to tilde, but for the percent sign, stay as they are (gRPC over HTTP/2, "Status-Message").
_UNQUOTED: Final = "".join(chr(code) for code in range(0x20, 0x7F) if chr(code) != "%")

RESPONSE_HEADERS: Final = _HTTP_OK + write_headers(
    ("content-type", "application/grpc"), ("grpc-accept-encoding", "identity,deflate,gzip")
)
_OK_TRAILERS: Final = write_headers(("grpc-status", "0"))


def trailers(code: StatusCode, message: str) -> bytes:
    """The block that ends a stream after its headers."""
    if code is StatusCode.OK and not message:
        return _OK_TRAILERS
    quoted = quote(message[:_MAX_MESSAGE_CHARACTERS], safe=_UNQUOTED)
    return write_headers(("grpc-status", str(int(code))), ("grpc-message", quoted))


def trailers_only(code: StatusCode, message: str) -> bytes:
    """The one block of a stream that carries nothing but a status."""
    return RESPONSE_HEADERS + trailers(code, message)


def refusal_headers(status: int) -> bytes:
    """The headers before `REFUSAL_BODY`, for what is HTTP but not gRPC."""
    return write_headers((":status", str(status)), ("content-type", "text/plain"))


REFUSAL_BODY: Final = b"This is a gRPC server: POST with content-type application/grpc.\n"
