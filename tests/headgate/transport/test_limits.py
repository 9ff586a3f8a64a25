"""Peers that make work for nothing are cut off; busy honest ones are not."""

from __future__ import annotations

import struct

import pytest

from headgate.transport.lean.header_blocks import MAX_BLOCK_BYTES
from headgate.transport.lean.limits import Limits
from tests.headgate.transport.peer import PREFACE, Peer, frame, message, settings

CALM = 11
RESET = struct.pack(">I", 8)


def goaways(peer: Peer) -> list[int]:
    return [answer.error for answer in peer.frames() if answer.kind == "GOAWAY"]


FLOODS = {
    "ping": frame("PING", 0, bytes(8)),
    "settings": settings(),
    "settings_acknowledged": frame("SETTINGS", flags=1),
    "priority": frame("PRIORITY", 1, bytes(5)),
    "empty_data": frame("DATA", 1),
    "unknown": frame(0x42, 0),
    "goaway": frame("GOAWAY", 0, bytes(8)),
}


@pytest.mark.parametrize("name", FLOODS)
def test_a_flood_of_frames_that_say_nothing_ends_the_connection(peer: Peer, name: str) -> None:
    peer.open()
    peer.connection.receive(FLOODS[name] * 2000, 0.0)

    assert goaways(peer) == [CALM]


@pytest.mark.parametrize("name", ["ping", "settings"])
def test_the_same_frames_spread_over_reads_are_no_flood(peer: Peer, name: str) -> None:
    stream = peer.open()
    for _ in range(1000):
        peer.connection.receive(FLOODS[name] * 10 + frame("DATA", stream, message(b"x")), 0.0)

    assert goaways(peer) == []
    assert len(peer.talks[0].log) == 1000


def test_endless_continuations_end_the_connection(peer: Peer) -> None:
    peer.connection.receive(frame("HEADERS", 1, b"") + frame("CONTINUATION", 1) * 2000, 0.0)
    assert goaways(peer) == [CALM]


def test_an_endless_header_block_ends_the_connection(peer: Peer) -> None:
    pieces = MAX_BLOCK_BYTES // 16_000 + 1
    peer.connection.receive(frame("HEADERS", 1, b"") + frame("CONTINUATION", 1, bytes(16_000)) * pieces, 0.0)
    assert goaways(peer) == [CALM]


def test_a_small_block_that_unfolds_to_a_large_list_ends_the_connection() -> None:
    peer = Peer(Limits(max_message_bytes=1000))
    peer.connection.receive(PREFACE + settings(), 0.0)
    peer.encoder.header_table_size = 4096
    block = peer.encoder.encode([("x", "y" * 4000)] * 20)
    assert len(block) < 5000
    peer.connection.receive(frame("HEADERS", 1, block, 4), 0.0)

    assert goaways(peer) == [CALM]


def test_calls_reset_as_soon_as_they_are_made_end_the_connection(peer: Peer) -> None:
    for _ in range(1500):
        stream = peer.open()
        peer.connection.receive(frame("RST_STREAM", stream, RESET), peer.now)
        peer.now += 0.001

    assert goaways(peer) == [CALM]
    assert len(peer.talks) < 1500


def test_many_clients_that_leave_at_once_after_waiting_do_not_end_the_connection(peer: Peer) -> None:
    streams = [peer.open() for _ in range(5000)]
    peer.now = 2.0
    for stream in streams:
        peer.connection.receive(frame("RST_STREAM", stream, RESET), peer.now)

    assert goaways(peer) == []


def test_calls_that_were_answered_may_be_reset_at_any_rate(peer: Peer) -> None:
    for _ in range(3000):
        stream = peer.open()
        peer.talks[-1].call.send(b"yes")
        peer.connection.receive(frame("RST_STREAM", stream, RESET), 0.0)

    assert goaways(peer) == []


def test_resets_among_many_calls_that_go_on_do_not_end_the_connection(peer: Peer) -> None:
    for number in range(6000):
        stream = peer.open()
        if number % 3 == 0:
            peer.connection.receive(frame("RST_STREAM", stream, RESET), 0.0)
        else:
            peer.connection.receive(frame("DATA", stream, b"", 1), 0.0)
            peer.talks[-1].call.finish()

    assert goaways(peer) == []


def test_what_is_known_about_past_streams_does_not_grow(peer: Peer) -> None:
    for _ in range(6000):
        peer.open()
        peer.talks[-1].call.finish()
    peer.connection.receive(frame("HEADERS", 200_001, peer.headers(), 4), 0.0)
    table = peer.connection._streams

    assert (len(table._resets), len(table._gaps), len(table.open)) == (4096, 1, 1)


def test_different_header_blocks_push_each_other_out(peer: Peer) -> None:
    for number in range(2000):
        peer.open(x_number=str(number))

    assert len(peer.connection._switchboard.headers._remembered._heads) <= 512
