"""Connections in memory, with a client at the other end."""

from __future__ import annotations

from collections.abc import Callable

import pytest

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
