"""TLS for a server of either transport: HTTP/2 only, and with an authority for clients only those it has signed."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path

from headgate.errors import SettingsError

ALPN = "h2"


@dataclass(frozen=True, slots=True, kw_only=True)
class Tls:
    """What a server presents and demands: files in PEM, read when it starts.

    Attributes:
        certificate: the chain, the server's own first.
        key: the certificate's, without a passphrase.
        client_authority: with it every client has to show a certificate this authority signed (mutual TLS).
    """

    certificate: Path
    key: Path
    client_authority: Path | None = None


def server_context(tls: Tls) -> ssl.SSLContext:
    """For a server on sockets of ours; also the check that the files are what they should be.

    Raises:
        SettingsError: a file cannot be read, or is not what it should be; says which.
    """
    for file in (tls.certificate, tls.key, tls.client_authority):
        if file is not None:
            _check_readable(file)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    # HTTP/2 forbids compression and, before TLS 1.3, renegotiation (RFC 9113, 9.2.1).
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    context.set_alpn_protocols([ALPN])
    _load_pair(context, tls)
    if tls.client_authority is not None:
        _load_authority(context, tls.client_authority)
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def _check_readable(file: Path) -> None:
    try:
        with file.open("rb"):
            pass
    except OSError as error:
        raise SettingsError(f"TLS: {file} cannot be read: {error.strerror}") from error


def _load_pair(context: ssl.SSLContext, tls: Tls) -> None:
    try:
        # A password that is never right: without one, OpenSSL would ask at the terminal.
        context.load_cert_chain(tls.certificate, tls.key, password=lambda: "")
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            raise SettingsError(f"TLS: the key {tls.key} is not that of the certificate {tls.certificate}") from error
        raise SettingsError(
            f"TLS: {tls.certificate} and {tls.key} are not a certificate and its key in PEM, without a passphrase"
        ) from error


def _load_authority(context: ssl.SSLContext, authority: Path) -> None:
    try:
        context.load_verify_locations(authority)
    except ssl.SSLError as error:
        raise SettingsError(f"TLS: {authority} is not a certificate in PEM") from error
