"""TLS on either transport: who gets in, and what is said of files that cannot be used."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import grpc
import grpc.aio
import pytest
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)

from headgate.errors import SettingsError
from headgate.lifecycle import Listener, Process
from headgate.settings import Settings, read_settings
from headgate.transport import Server, Service
from headgate.transport.tls import Tls, server_context

PATIENCE_SECONDS = 20.0
BOTH_TRANSPORTS = pytest.mark.parametrize("transport", ["lean", "grpcio"])


def echo(message: bytes) -> bytes:
    return message


ECHO = Service(name="test.Echo", functions={"Echo": echo})


@pytest.fixture
def tls(certificates: Path) -> Tls:
    return Tls(certificate=certificates / "server.pem", key=certificates / "server.key")


async def ask(address: str, certificates: Path, who: str | None) -> grpc.StatusCode:
    """What a client of this name, or without a certificate, is told."""
    authority = (certificates / "authority.pem").read_bytes()
    pair = [(certificates / f"{who}{end}").read_bytes() for end in (".key", ".pem")] if who else []
    async with grpc.aio.secure_channel(address, grpc.ssl_channel_credentials(authority, *pair)) as channel:
        call = channel.unary_unary("/test.Echo/Echo")(b"hi" * 100_000, timeout=PATIENCE_SECONDS)
        code = await call.code()
        assert code is not grpc.StatusCode.OK or await call == b"hi" * 100_000
        return code


@pytest.mark.parametrize("who", [None, "client", "stranger"])
async def test_without_an_authority_everybody_is_served(
    who: str | None, new_server: Callable[..., Server], tls: Tls, certificates: Path
) -> None:
    server = new_server("127.0.0.1:0", [ECHO], max_message_bytes=1 << 20, tls=tls)

    assert await ask(await server.start(), certificates, who) is grpc.StatusCode.OK

    await server.drain(0)


@pytest.mark.parametrize(
    ("who", "code"),
    [("client", grpc.StatusCode.OK), (None, grpc.StatusCode.UNAVAILABLE), ("stranger", grpc.StatusCode.UNAVAILABLE)],
)
async def test_mutual_tls_serves_whom_the_authority_has_signed_and_nobody_else(
    who: str | None, code: grpc.StatusCode, new_server: Callable[..., Server], tls: Tls, certificates: Path
) -> None:
    mutual = replace(tls, client_authority=certificates / "authority.pem")
    server = new_server("127.0.0.1:0", [ECHO], max_message_bytes=1 << 20, tls=mutual)

    assert await ask(await server.start(), certificates, who) is code

    await server.drain(0)


async def test_a_client_without_tls_is_not_served(new_server: Callable[..., Server], tls: Tls) -> None:
    server = new_server("127.0.0.1:0", [ECHO], max_message_bytes=1 << 20, tls=tls)

    async with grpc.aio.insecure_channel(await server.start()) as channel:
        call = channel.unary_unary("/test.Echo/Echo")(b"hi", timeout=PATIENCE_SECONDS)
        assert await call.code() is grpc.StatusCode.UNAVAILABLE

    await server.drain(0)


@BOTH_TRANSPORTS
async def test_the_settings_put_every_listener_behind_tls(transport: str, certificates: Path) -> None:
    environment = {
        "HEADGATE_TRANSPORT": transport,
        "HEADGATE_TLS_CERT": str(certificates / "server.pem"),
        "HEADGATE_TLS_KEY": str(certificates / "server.key"),
        "HEADGATE_TLS_CLIENT_CA": str(certificates / "authority.pem"),
    }
    process = Process(read_settings({}, environment))

    async with process._serving(Listener("test", "127.0.0.1:0", [ECHO])) as address:
        assert await ask(address, certificates, "client") is grpc.StatusCode.OK
        assert await ask(address, certificates, None) is grpc.StatusCode.UNAVAILABLE


@BOTH_TRANSPORTS
async def test_a_listener_may_have_tls_of_its_own(transport: str, tls: Tls, certificates: Path) -> None:
    process = Process(Settings(transport=transport))

    async with process._serving(Listener("test", "127.0.0.1:0", [ECHO], tls)) as address:
        assert await ask(address, certificates, None) is grpc.StatusCode.OK


async def test_a_file_that_cannot_be_used_keeps_the_server_from_starting(
    new_server: Callable[..., Server], tls: Tls, tmp_path: Path
) -> None:
    wrong = replace(tls, key=tmp_path / "absent.key")

    with pytest.raises(SettingsError, match=r"absent\.key cannot be read: No such file or directory"):
        await new_server("127.0.0.1:0", [ECHO], max_message_bytes=1 << 20, tls=wrong).start()


def lock(key: Path, locked: Path) -> None:
    """The same key behind a passphrase."""
    loaded = load_pem_private_key(key.read_bytes(), password=None)
    locked.write_bytes(
        loaded.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"a passphrase"))
    )


def test_files_that_are_not_what_they_should_be_are_named(tls: Tls, certificates: Path, tmp_path: Path) -> None:
    empty, locked = tmp_path / "empty.pem", tmp_path / "locked.key"
    empty.touch()
    lock(tls.key, locked)
    no_pair = "are not a certificate and its key in PEM, without a passphrase"
    other = certificates / "client.key"

    for wrong, message in (
        (replace(tls, certificate=empty), f"TLS: {empty} and {tls.key} {no_pair}"),
        (replace(tls, key=empty), f"TLS: {tls.certificate} and {empty} {no_pair}"),
        (replace(tls, key=locked), f"TLS: {tls.certificate} and {locked} {no_pair}"),
        (replace(tls, key=other), f"TLS: the key {other} is not that of the certificate {tls.certificate}"),
        (replace(tls, client_authority=empty), f"TLS: {empty} is not a certificate in PEM"),
        (replace(tls, client_authority=tls.key), f"TLS: {tls.key} is not a certificate in PEM"),
        (replace(tls, certificate=tmp_path), f"TLS: {tmp_path} cannot be read: Is a directory"),
    ):
        with pytest.raises(SettingsError) as raised:
            server_context(wrong)
        assert str(raised.value) == message
