"""Compressed request bodies and messages, undone within a bound: a bomb costs no more memory than its limit.

Only what the standard library reads: gzip, and deflate as RFC 9110 means it (zlib's format) or as some clients send it.
"""

from __future__ import annotations

import zlib

from extproc.inspection.request import RequestError

ENCODINGS = ("gzip", "x-gzip", "deflate")
ACCEPTED = "gzip, deflate"
"""As `accept-encoding` lists them."""
UNREADABLE = "A request may be compressed with gzip or deflate, and with nothing else."
_GZIP_BITS = 16 + zlib.MAX_WBITS
_RAW_DEFLATE_BITS = -zlib.MAX_WBITS
_MAX_MEMBERS = 64


def decompress(data: bytes, encoding: str, limit_bytes: int) -> bytes:
    """Undo one `content-encoding` or `grpc-encoding`; linear in the bytes read and written.

    Raises:
        RequestError: 415 for another encoding, 413 past the limit, 400 for data that is damaged or cut short.
    """
    match encoding.strip().lower():
        case "" | "identity":
            return data
        case "gzip" | "x-gzip":
            return _gzip(data, limit_bytes)
        case "deflate":
            return _deflate(data, limit_bytes)
        case _:
            raise RequestError(UNREADABLE, param="content-encoding", status=415)


def _gzip(data: bytes, limit_bytes: int) -> bytes:
    """Any number of gzip members, one after the other (RFC 1952, 2.2)."""
    plain, members = b"", 0
    while data or not members:
        members += 1
        if members > _MAX_MEMBERS:
            raise RequestError("The compressed request has too many parts.")
        part, data = _inflate(data, _GZIP_BITS, limit_bytes - len(plain))
        plain += part
    return plain


def _deflate(data: bytes, limit_bytes: int) -> bytes:
    # The first two bytes of zlib's format are a multiple of 31; Microsoft's clients once left them out.
    is_zlib = len(data) >= 2 and data[0] & 0x0F == 8 and int.from_bytes(data[:2], "big") % 31 == 0
    plain, rest = _inflate(data, zlib.MAX_WBITS if is_zlib else _RAW_DEFLATE_BITS, limit_bytes)
    if rest:
        raise RequestError("The compressed request goes on after its end.")
    return plain


def _inflate(data: bytes, window_bits: int, limit_bytes: int) -> tuple[bytes, bytes]:
    """One compressed stream and what follows it."""
    inflater = zlib.decompressobj(window_bits)
    try:
        # One byte more than allowed tells too long from just long enough; 0 would mean no limit.
        plain = inflater.decompress(data, limit_bytes + 1)
    except zlib.error:
        raise RequestError("The request is not compressed the way it says.") from None
    if len(plain) > limit_bytes:
        message = f"The request is larger than the {limit_bytes} bytes allowed once it is decompressed."
        raise RequestError(message, status=413)
    if not inflater.eof:
        raise RequestError("The compressed request is cut short.")
    return plain, inflater.unused_data
