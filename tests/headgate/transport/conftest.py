"""Connections in memory with a client at the other end, and certificates."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import trustme

from headgate.transport import OpenConversation
from headgate.transport.lean.limits import Limits
from tests.headgate.transport.peer import Peer

NewPeer = Callable[..., Peer]


@pytest.fixture
def new_peer() -> NewPeer:
    """A greeted client of a new connection, with these limits."""

    def new(open_conversation: OpenConversation | None = None, **limits: int) -> Peer:
        peer = Peer(Limits(**{"max_message_bytes": 1 << 20, **limits}), open_conversation)
        peer.greet()
        return peer

    return new


@pytest.fixture
def peer(new_peer: NewPeer) -> Peer:
    return new_peer()


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`authority.pem` has signed `server` and `client`, each a `.pem` and a `.key`; somebody else signed `stranger`."""
    folder = tmp_path_factory.mktemp("certificates")
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(folder / "authority.pem"))
    for name, signer, host in (
        ("server", authority, "127.0.0.1"),
        ("client", authority, "client.test"),
        ("stranger", trustme.CA(), "client.test"),
    ):
        issued = signer.issue_cert(host)
        issued.cert_chain_pems[0].write_to_path(str(folder / f"{name}.pem"))
        issued.private_key_pem.write_to_path(str(folder / f"{name}.key"))
    return folder
