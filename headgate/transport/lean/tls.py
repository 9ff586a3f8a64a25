"""TLS for a server: HTTP/2 only, and with an authority for clients only those it has signed."""

from __future__ import annotations

import ssl
from pathlib import Path

ALPN = "h2"


def server_context(certificate: Path, key: Path, client_authority: Path | None = None) -> ssl.SSLContext:
    """What a server presents and demands.

    Args:
        certificate: the chain in PEM, the server's own first.
        client_authority: PEM; with it every client has to show a certificate this authority signed (mutual TLS).

    Raises:
        OSError: a file cannot be read, or is not what it should be (`ssl.SSLError`).
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    # HTTP/2 forbids compression and, before TLS 1.3, renegotiation (RFC 9113, 9.2.1).
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    context.set_alpn_protocols([ALPN])
    context.load_cert_chain(certificate, key)
    if client_authority is not None:
        context.load_verify_locations(client_authority)
        context.verify_mode = ssl.CERT_REQUIRED
    return context
