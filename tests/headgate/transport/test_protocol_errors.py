"""What RFC 9113 forbids, section by section: each case ends the stream or the connection with the code it names.

The cases of h2spec, which is no Python package; `bench/peers/README.md` says how to run the original.
"""

from __future__ import annotations

import struct

import pytest

from headgate.transport.lean.limits import Limits
from tests.headgate.transport.conftest import NewPeer
from tests.headgate.transport.peer import PREFACE, Peer, frame, message, settings

PROTOCOL, FLOW, CLOSED, SIZE, REFUSED, COMPRESSION, CALM = 1, 3, 5, 6, 7, 9, 11
TALK = message(b"hi")


def update(increment: int) -> bytes:
    return struct.pack(">I", increment)


def goaways(peer: Peer, data: bytes) -> list[int]:
    return [answer.error for answer in peer.send(data) if answer.kind == "GOAWAY"]


def resets(peer: Peer, data: bytes) -> list[tuple[int, int]]:
    return [(answer.stream, answer.error) for answer in peer.send(data) if answer.kind == "RST_STREAM"]


@pytest.mark.parametrize(
    "data",
    [b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r!", PREFACE + frame("PING", 0, bytes(8))],
    ids=["http1", "wrong_preface", "preface_without_settings"],
)
def test_3_4_a_connection_begins_with_the_preface_and_settings(data: bytes) -> None:
    peer = Peer(Limits(max_message_bytes=1000))

    assert goaways(peer, data) == [PROTOCOL]
    assert peer.connection.is_closed


def test_3_4_the_preface_may_come_byte_by_byte() -> None:
    peer = Peer(Limits(max_message_bytes=1000))
    for byte in PREFACE + settings():
        peer.connection.receive(bytes((byte,)), 0.0)

    assert [answer.kind for answer in peer.frames()] == ["SETTINGS", "WINDOW_UPDATE", "SETTINGS"]
    assert peer.connection.is_greeted


CONNECTION_FAULTS = {
    "4_2_a_frame_larger_than_allowed": (frame("DATA", 1, bytes(16_385)), SIZE),
    "4_2_headers_larger_than_allowed": (frame("HEADERS", 3, bytes(16_385), 4), SIZE),
    "4_2_an_unknown_frame_larger_than_allowed": (frame(200, 0, bytes(16_385)), SIZE),
    "4_3_a_block_that_cannot_be_decoded": (frame("HEADERS", 3, b"\x40", 4), COMPRESSION),
    "4_3_a_block_that_is_not_continued": (frame("HEADERS", 3, b"\x82", 0) + frame("PING", 0, bytes(8)), PROTOCOL),
    "4_3_a_block_continued_on_another_stream": (
        frame("HEADERS", 3, b"\x82", 0) + frame("CONTINUATION", 5, b"\x82", 4),
        PROTOCOL,
    ),
    "5_1_data_on_an_idle_stream": (frame("DATA", 3, TALK), PROTOCOL),
    "5_1_a_reset_of_an_idle_stream": (frame("RST_STREAM", 3, bytes(4)), PROTOCOL),
    "5_1_a_window_of_an_idle_stream": (frame("WINDOW_UPDATE", 3, update(1)), PROTOCOL),
    "5_1_1_a_stream_with_an_even_number": (frame("HEADERS", 2, b"\x82", 4), PROTOCOL),
    "5_1_1_headers_on_stream_0": (frame("HEADERS", 0, b"\x82", 4), PROTOCOL),
    "6_1_data_on_stream_0": (frame("DATA", 0, TALK), PROTOCOL),
    "6_1_more_padding_than_data": (frame("DATA", 1, b"\x05abc", 8), PROTOCOL),
    "6_1_padding_without_its_length": (frame("DATA", 1, b"", 8), SIZE),
    "6_2_more_padding_than_headers": (frame("HEADERS", 3, b"\x05\x82", 12), PROTOCOL),
    "6_2_priority_without_room_for_it": (frame("HEADERS", 3, b"\x82", 0x24), SIZE),
    "6_3_a_priority_of_stream_0": (frame("PRIORITY", 0, bytes(5)), PROTOCOL),
    "6_4_a_reset_of_stream_0": (frame("RST_STREAM", 0, bytes(4)), PROTOCOL),
    "6_4_a_reset_of_a_wrong_size": (frame("RST_STREAM", 1, bytes(3)), SIZE),
    "6_5_settings_on_a_stream": (frame("SETTINGS", 1), PROTOCOL),
    "6_5_settings_of_a_wrong_size": (frame("SETTINGS", 0, bytes(5)), SIZE),
    "6_5_an_acknowledgement_with_content": (frame("SETTINGS", 0, bytes(6), 1), SIZE),
    "6_5_2_push_that_is_neither_on_nor_off": (settings(enable_push=2), PROTOCOL),
    "6_5_2_a_window_that_is_too_large": (settings(initial_window_size=2**31), FLOW),
    "6_5_2_a_frame_size_that_is_too_small": (settings(max_frame_size=16_383), PROTOCOL),
    "6_5_2_a_frame_size_that_is_too_large": (settings(max_frame_size=2**24), PROTOCOL),
    "6_6_a_push": (frame("PUSH_PROMISE", 1, bytes(8), 4), PROTOCOL),
    "6_7_a_ping_on_a_stream": (frame("PING", 1, bytes(8)), PROTOCOL),
    "6_7_a_ping_of_a_wrong_size": (frame("PING", 0, bytes(6)), SIZE),
    "6_8_a_farewell_on_a_stream": (frame("GOAWAY", 1, bytes(8)), PROTOCOL),
    "6_8_a_farewell_of_a_wrong_size": (frame("GOAWAY", 0, bytes(4)), SIZE),
    "6_9_the_connection_window_raised_by_nothing": (frame("WINDOW_UPDATE", 0, update(0)), PROTOCOL),
    "6_9_a_window_update_of_a_wrong_size": (frame("WINDOW_UPDATE", 0, bytes(3)), SIZE),
    "6_9_1_the_connection_window_overflows": (frame("WINDOW_UPDATE", 0, update(2**31 - 1)), FLOW),
    "6_9_2_a_stream_window_overflows_by_a_setting": (
        frame("WINDOW_UPDATE", 1, update(2**31 - 1 - 65_535)) + settings(initial_window_size=65_536),
        FLOW,
    ),
    "6_10_a_continuation_of_nothing": (frame("CONTINUATION", 1, b"\x82", 4), PROTOCOL),
    "6_10_a_continuation_after_the_end": (
        frame("HEADERS", 3, b"\x82", 4) + frame("CONTINUATION", 3, b"\x82", 4),
        PROTOCOL,
    ),
}


@pytest.mark.parametrize("name", CONNECTION_FAULTS)
def test_a_fault_that_ends_the_connection(peer: Peer, name: str) -> None:
    data, code = CONNECTION_FAULTS[name]
    peer.open()
    peer.frames()

    assert goaways(peer, data) == [code]
    assert peer.connection.is_closed
    assert peer.talks[0].log == ["gone"]


STREAM_FAULTS = {
    "5_3_1_a_priority_on_itself": (frame("PRIORITY", 1, update(1) + b"\x10"), PROTOCOL),
    "6_3_a_priority_of_a_wrong_size": (frame("PRIORITY", 1, bytes(4)), SIZE),
    "6_9_a_stream_window_raised_by_nothing": (frame("WINDOW_UPDATE", 1, update(0)), PROTOCOL),
    "6_9_1_a_stream_window_overflows": (frame("WINDOW_UPDATE", 1, update(2**31 - 1)), FLOW),
    "8_1_trailers_that_do_not_end_the_stream": (frame("HEADERS", 1, b"\x82", 4), PROTOCOL),
    "8_1_trailers_with_a_pseudo_header": (frame("HEADERS", 1, b"\x82", 5), PROTOCOL),
}


@pytest.mark.parametrize("name", STREAM_FAULTS)
def test_a_fault_that_ends_the_stream_and_nothing_else(peer: Peer, name: str) -> None:
    data, code = STREAM_FAULTS[name]
    stream = peer.open()
    peer.frames()

    assert resets(peer, data) == [(stream, code)]
    assert peer.talks[0].log == ["gone"]
    other = peer.open()
    peer.send(frame("DATA", other, TALK, 1))
    assert peer.talks[1].log == [b"hi", "half-closed"]


def test_5_1_a_half_closed_stream_takes_no_data_and_no_headers(new_peer: NewPeer) -> None:
    for late in (frame("DATA", 1, TALK), frame("HEADERS", 1, b"", 5)):
        peer = new_peer()
        peer.open(end=True)
        assert resets(peer, late) == [(1, CLOSED)]


def test_5_1_a_closed_stream_takes_no_data_and_no_headers(new_peer: NewPeer) -> None:
    data_late, headers_late = new_peer(), new_peer()
    for peer in (data_late, headers_late):
        peer.open(end=True)
        peer.talks[0].call.finish()

    assert resets(data_late, frame("DATA", 1, TALK)) == [(1, CLOSED)]
    assert goaways(headers_late, frame("HEADERS", 1, headers_late.headers(), 5)) == [CLOSED]


def test_5_1_what_comes_late_on_a_stream_we_reset_is_no_fault(peer: Peer) -> None:
    stream = peer.open()
    peer.talks[0].call.finish()
    peer.frames()
    late = frame("DATA", stream, TALK) + frame("HEADERS", stream, b"", 5) + frame("RST_STREAM", stream, bytes(4))

    assert peer.send(late) == []


def test_5_1_1_a_number_that_was_passed_over_cannot_be_used(peer: Peer) -> None:
    peer.send(frame("HEADERS", 9, peer.headers(), 4))

    assert goaways(peer, frame("HEADERS", 3, peer.headers(), 4)) == [PROTOCOL]


def test_5_1_2_more_streams_than_allowed_are_refused(new_peer: NewPeer) -> None:
    peer = new_peer(max_streams=2)
    for _ in range(3):
        peer.open()

    assert [(answer.stream, answer.error) for answer in peer.frames() if answer.kind == "RST_STREAM"] == [(5, REFUSED)]
    assert len(peer.talks) == 2


def test_5_5_unknown_frames_flags_and_settings_are_ignored(peer: Peer) -> None:
    unknown_setting = frame("SETTINGS", 0, struct.pack(">HI", 0xFF, 1))
    peer.send(frame(0x16, 0, bytes(8)) + frame("PING", 0, bytes(8), 0xFE & ~1) + unknown_setting)

    assert not peer.connection.is_closed


MALFORMED_HEADS = {
    "8_2_upper_case": {"Upper": "x"},
    "8_2_1_a_space_in_a_name": {"a b": "x"},
    "8_2_1_a_line_break_in_a_value": {"x": "a\r\nb"},
    "8_2_2_connection": {"connection": "keep-alive"},
    "8_2_2_transfer_encoding": {"transfer-encoding": "chunked"},
    "8_2_2_te_other_than_trailers": {"te": "gzip"},
    "8_3_an_unknown_pseudo_header": {":unknown": "x"},
    "8_3_1_no_method": {":method": None},
    "8_3_1_no_scheme": {":scheme": None},
    "8_3_1_no_path": {":path": None},
    "8_3_1_an_empty_path": {":path": ""},
    "8_1_1_a_content_length_that_is_no_number": {"content-length": "-1"},
}


@pytest.mark.parametrize("name", MALFORMED_HEADS)
def test_8_a_malformed_request_ends_its_stream(peer: Peer, name: str) -> None:
    stream = peer.open(**MALFORMED_HEADS[name])

    assert [(answer.kind, answer.stream, answer.error) for answer in peer.frames()] == [
        ("RST_STREAM", stream, PROTOCOL)
    ]
    assert peer.talks == []


def test_8_3_pseudo_headers_come_once_and_first(peer: Peer) -> None:
    double = [(":method", "POST"), (":method", "POST"), (":scheme", "http"), (":path", "/test.Echo/Talk")]
    late = [(":method", "POST"), (":scheme", "http"), ("x", "y"), (":path", "/test.Echo/Talk")]

    assert resets(peer, frame("HEADERS", 1, peer.encoder.encode(double), 4)) == [(1, PROTOCOL)]
    assert resets(peer, frame("HEADERS", 3, peer.encoder.encode(late), 4)) == [(3, PROTOCOL)]


def test_8_1_1_content_has_the_length_it_was_said_to_have(new_peer: NewPeer) -> None:
    for data in (frame("DATA", 1, bytes(11), 0), frame("DATA", 1, bytes(9), 1)):
        peer = new_peer()
        peer.open(content_length="10")
        assert resets(peer, data) == [(1, PROTOCOL)]
    peer = new_peer()
    peer.open(content_length="7")
    assert resets(peer, frame("DATA", 1, TALK, 1)) == []
    assert peer.talks[0].log == [b"hi", "half-closed"]
