"""Windows both ways, and what becomes of a peer that gives no room, or of a handler that takes its time."""

from __future__ import annotations

import struct

import pytest

from tests.headgate.transport.conftest import NewPeer
from tests.headgate.transport.peer import Peer, frame, message, settings


def update(stream: int, increment: int) -> bytes:
    return frame("WINDOW_UPDATE", stream, struct.pack(">I", increment))


def granted(peer: Peer, data: bytes) -> dict[int, int]:
    return {
        answer.stream: int.from_bytes(answer.payload, "big")
        for answer in peer.send(data)
        if answer.kind == "WINDOW_UPDATE"
    }


def test_a_message_is_sent_in_frames_as_large_as_the_client_allows(peer: Peer) -> None:
    peer.send(settings(max_frame_size=20_000, initial_window_size=1 << 20))
    peer.open()
    peer.talks[0].call.send(b"x" * 50_000)
    sizes = [len(answer.payload) for answer in peer.frames() if answer.kind == "DATA"]

    assert sizes == [20_000, 20_000, 10_005]


def test_a_message_waits_for_the_stream_window_and_the_trailers_wait_for_the_message(peer: Peer) -> None:
    peer.send(settings(initial_window_size=10))
    stream = peer.open()
    call = peer.talks[0].call
    call.send(b"x" * 20)
    call.send(b"second")
    call.finish()
    assert call.is_congested
    assert [answer.kind for answer in peer.frames()] == ["HEADERS", "DATA"]

    assert [len(answer.payload) for answer in peer.send(update(stream, 1))] == [1]
    last = peer.send(update(stream, 1000))
    assert [answer.kind for answer in last] == ["DATA", "DATA", "HEADERS", "RST_STREAM"]
    assert len(last[0].payload) == 14
    assert peer.connection.open_streams == 0


def test_streams_share_the_connection_window_in_the_order_in_which_they_got_stuck(peer: Peer) -> None:
    peer.send(settings(initial_window_size=1 << 20))
    streams = [peer.open() for _ in range(3)]
    for talk in peer.talks:
        talk.call.send(b"x" * 65_530)
    assert {answer.stream for answer in peer.frames() if answer.kind == "DATA"} == {streams[0]}

    answers = peer.send(update(0, 65_536))
    assert [answer.stream for answer in answers if answer.kind == "DATA"][-1] == streams[2]
    assert sum(len(answer.payload) for answer in answers) == 65_536
    assert sum(len(answer.payload) for answer in peer.send(update(0, 65_534))) == 65_534
    assert not peer.talks[2].call.is_congested


def test_a_smaller_initial_window_can_leave_less_than_nothing(peer: Peer) -> None:
    stream = peer.open()
    call = peer.talks[0].call
    call.send(b"x" * 995)
    peer.frames()
    peer.send(settings(initial_window_size=500))
    call.send(b"y")

    assert peer.send(update(stream, 500)) == []
    assert [answer.payload for answer in peer.send(update(stream, 6))] == [message(b"y")]


def test_a_larger_initial_window_frees_what_waits(peer: Peer) -> None:
    peer.send(settings(initial_window_size=0))
    stream = peer.open()
    peer.talks[0].call.send(b"hi")
    peer.frames()
    answers = peer.send(settings(initial_window_size=100))

    assert [answer.payload for answer in answers if answer.stream == stream] == [message(b"hi")]


def test_a_call_says_when_its_congestion_is_over(peer: Peer) -> None:
    peer.send(settings(initial_window_size=3))
    stream = peer.open()
    call = peer.talks[0].call
    relieved: list[bool] = []
    call.send(b"hi")
    call.on_drained(lambda: relieved.append(call.is_congested))
    assert relieved == []

    peer.send(update(stream, 4))
    assert relieved == [False]
    peer.connection.outbox.is_congested = True
    call.on_drained(lambda: relieved.append(call.is_congested))
    peer.connection.outbox.relieve()
    assert relieved == [False, False]


def test_a_client_that_takes_nothing_cannot_make_us_keep_everything(new_peer: NewPeer) -> None:
    peer = new_peer(kept_bytes=100_000)
    peer.send(settings(initial_window_size=0))
    first, second = peer.open(), peer.open()
    for talk in peer.talks:
        talk.call.send(b"x" * 60_000)

    assert [(answer.stream, answer.error) for answer in peer.frames() if answer.kind == "RST_STREAM"] == [(second, 11)]
    assert [talk.log for talk in peer.talks] == [[], ["gone"]]
    assert peer.connection.outbox.kept_bytes == 60_005
    peer.send(frame("RST_STREAM", first, bytes(4)))
    assert peer.connection.outbox.kept_bytes == 0


def test_the_stream_window_is_opened_again_when_half_of_it_is_used(new_peer: NewPeer) -> None:
    peer = new_peer(stream_window_bytes=10_000)
    stream = peer.open()
    peer.frames()

    assert granted(peer, frame("DATA", stream, message(bytes(4995)))) == {}
    assert granted(peer, frame("DATA", stream, message(b""))) == {stream: 5005}


def test_the_connection_window_is_opened_again_when_half_of_it_is_used(new_peer: NewPeer) -> None:
    peer = new_peer(connection_window_bytes=80_000)
    streams = [peer.open() for _ in range(3)]
    peer.frames()

    for stream in (streams[0], streams[1]):
        assert granted(peer, frame("DATA", stream, message(bytes(15_995)))) == {}
    assert granted(peer, frame("DATA", streams[2], message(bytes(15_995)))) == {0: 48_000}


def test_a_message_larger_than_the_window_gets_the_room_it_announces(new_peer: NewPeer) -> None:
    peer = new_peer(stream_window_bytes=20_000)
    stream = peer.open()
    peer.frames()
    data = message(b"x" * 500_000)

    room = granted(peer, frame("DATA", stream, data[:1000]))[stream]
    assert room == 500_005 - 1000 + 1000
    for start in range(1000, len(data), 16_000):
        peer.send(frame("DATA", stream, data[start : start + 16_000]))
    assert peer.talks[0].log == [b"x" * 500_000]


def test_more_than_the_window_holds_is_an_error(new_peer: NewPeer) -> None:
    stream_full = new_peer(stream_window_bytes=1000)
    stream_full.open()
    answers = stream_full.send(frame("DATA", 1, bytes(1001)))
    assert [(a.kind, a.error) for a in answers if a.kind == "RST_STREAM"] == [("RST_STREAM", 3)]

    all_full = new_peer(connection_window_bytes=65_535)
    all_full.connection._window = 10
    all_full.open()
    assert [a.error for a in all_full.send(frame("DATA", 1, bytes(11))) if a.kind == "GOAWAY"] == [3]


def test_a_paused_call_gets_no_more_room_until_it_resumes(new_peer: NewPeer) -> None:
    peer = new_peer(stream_window_bytes=1000)
    stream = peer.open()
    call = peer.talks[0].call
    peer.frames()
    call.pause()
    assert granted(peer, frame("DATA", stream, message(bytes(795)))) == {}

    call.resume()
    assert [int.from_bytes(answer.payload, "big") for answer in peer.frames()] == [800]


def test_unfinished_messages_are_bounded_over_all_streams(new_peer: NewPeer) -> None:
    peer = new_peer(kept_bytes=30_000)
    for _ in range(3):
        peer.open()
    peer.frames()
    begun = message(bytes(20_000))[:12_000]
    answers = [peer.send(frame("DATA", stream, begun)) for stream in (1, 3, 5)]

    ended = [[answer.kind for answer in of_stream if answer.kind == "HEADERS"] for of_stream in answers]
    assert ended == [[], [], ["HEADERS"]]
    assert peer.connection._streams.kept_bytes == 24_000
    peer.connection.lost()
    assert peer.connection._streams.kept_bytes == 0


@pytest.mark.parametrize("window", [1, 7, 16_384])
def test_a_response_arrives_whole_through_any_window(peer: Peer, window: int) -> None:
    peer.send(settings(initial_window_size=window))
    stream = peer.open()
    sent = b"".join(message(bytes((number,)) * number * 13) for number in range(40))
    for number in range(40):
        peer.talks[0].call.send(bytes((number,)) * number * 13)
    seen = peer.messages(stream)
    while len(seen) < len(sent):
        peer.connection.receive(update(stream, window), 0.0)
        seen += peer.messages(stream)

    assert seen == sent
    assert peer.connection.outbox.kept_bytes == 0
