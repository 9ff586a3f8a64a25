"""The life of a call on a connection in memory: read as transcripts, client above, server below."""

from __future__ import annotations

import gzip
import logging
import struct
import zlib

import pytest

from headgate.transport import Call, Conversation, RpcError, StatusCode
from headgate.transport.lean.header_blocks import RememberedHeads
from headgate.transport.lean.limits import Limits
from headgate.transport.lean.stream import Stream
from tests.headgate.transport.conftest import NewPeer
from tests.headgate.transport.peer import PREFACE, Peer, Talk, frame, message, settings

NO_ERROR, CANCEL = 0, 8


def kinds(peer: Peer) -> list[str]:
    return [answer.kind for answer in peer.frames()]


def status(peer: Peer) -> tuple[str, str]:
    """The status of the one call that ended since the last time."""
    [last] = [answer for answer in peer.frames() if answer.kind == "HEADERS" and answer.is_end]
    headers = peer.reader.headers(last)
    return headers["grpc-status"], headers.get("grpc-message", "")


def test_a_call_from_its_headers_to_its_trailers(peer: Peer) -> None:
    stream = peer.open(x_tenant="acme", key_bin="AAEC")
    talk = peer.talks[0]
    assert dict(talk.call.metadata) == {"x-tenant": "acme", "key-bin": b"\x00\x01\x02"}

    peer.send(frame("DATA", stream, message(b"one") + message(b"two")))
    assert talk.log == [b"one", b"two"]

    talk.call.send(b"first")
    talk.call.send(b"second")
    headers, first, second = peer.frames()
    assert peer.reader.headers(headers) == {
        ":status": "200",
        "content-type": "application/grpc",
        "grpc-accept-encoding": "identity,deflate,gzip",
    }
    assert first.payload + second.payload == message(b"first") + message(b"second")

    peer.send(frame("DATA", stream, b"", 1))
    assert talk.log == [b"one", b"two", "half-closed"]
    talk.call.finish()
    [trailers] = peer.frames()
    assert trailers.is_end
    assert peer.reader.headers(trailers) == {"grpc-status": "0"}
    assert peer.connection.open_streams == 0


def test_a_message_arrives_whole_however_it_is_cut_into_frames(peer: Peer) -> None:
    stream = peer.open()
    data = message(b"a" * 100) + message(b"") + message(b"b" * 40_000)
    for start in range(0, len(data), 777):
        peer.send(frame("DATA", stream, data[start : start + 777]))

    assert peer.talks[0].log == [b"a" * 100, b"", b"b" * 40_000]


def test_frames_arrive_whole_however_they_are_cut_into_reads(new_peer: NewPeer) -> None:
    peer = new_peer()
    data = frame("HEADERS", 1, peer.headers(), 4) + frame("DATA", 1, message(b"hi")) + frame("DATA", 1, b"", 1)
    for byte in data:
        peer.connection.receive(bytes((byte,)), 0.0)

    assert peer.talks[0].log == [b"hi", "half-closed"]


def test_headers_in_continuations_with_padding_and_priority_begin_a_call(peer: Peer) -> None:
    block = peer.headers()
    padded = b"\x02" + struct.pack(">IB", 3, 15) + block[:5] + b"\x00\x00"
    peer.send(
        frame("HEADERS", 1, padded, 0x28)
        + frame("CONTINUATION", 1, block[5:9])
        + frame("CONTINUATION", 1, block[9:], 4)
    )

    assert len(peer.talks) == 1


def test_padding_of_data_is_no_part_of_the_message(peer: Peer) -> None:
    stream = peer.open()
    peer.send(frame("DATA", stream, b"\x03" + message(b"hi") + bytes(3), 8))

    assert peer.talks[0].log == [b"hi"]


def test_trailers_of_the_client_half_close_a_call(peer: Peer) -> None:
    stream = peer.open()
    peer.send(frame("HEADERS", stream, peer.encoder.encode([("x", "y")]), 5))

    assert peer.talks[0].log == ["half-closed"]


def test_a_call_finished_early_asks_the_client_to_stop_and_is_told_that_it_has_ended(peer: Peer) -> None:
    stream = peer.open()
    talk = peer.talks[0]
    talk.call.finish(StatusCode.RESOURCE_EXHAUSTED, "100% of ä")

    only, reset = peer.frames()
    assert peer.reader.headers(only) == {
        ":status": "200",
        "content-type": "application/grpc",
        "grpc-accept-encoding": "identity,deflate,gzip",
        "grpc-status": "8",
        "grpc-message": "100%25 of %C3%A4",
    }
    assert (reset.kind, reset.stream, reset.error) == ("RST_STREAM", stream, NO_ERROR)
    assert talk.log == ["gone"]
    talk.call.send(b"too late")
    talk.call.finish()
    assert peer.frames() == []


@pytest.mark.parametrize("phase", ["at_once", "after_a_message", "inside_a_message", "half_closed"])
def test_a_cancelled_call_ends_its_conversation_once_in_every_phase(peer: Peer, phase: str) -> None:
    stream = peer.open()
    talk = peer.talks[0]
    cancelled: list[bool] = []
    talk.call.on_cancelled(lambda: cancelled.append(talk.call.is_open))
    before = {
        "at_once": b"",
        "after_a_message": frame("DATA", stream, message(b"hi")),
        "inside_a_message": frame("DATA", stream, message(b"hi")[:-1]),
        "half_closed": frame("DATA", stream, b"", 1),
    }
    peer.send(before[phase] + frame("RST_STREAM", stream, struct.pack(">I", CANCEL)))

    assert talk.log[-1] == ("half-closed" if phase == "half_closed" else "gone")
    assert sum(isinstance(entry, str) for entry in talk.log) == 1
    assert cancelled == [False]
    assert peer.connection.open_streams == 0
    talk.call.send(b"nobody")
    assert peer.frames() == []


def test_a_listener_that_fails_takes_nothing_else_with_it(peer: Peer, caplog: pytest.LogCaptureFixture) -> None:
    def fail() -> None:
        raise KeyError

    first, second = peer.open(), peer.open()
    peer.talks[0].call.on_cancelled(fail)
    peer.send(frame("RST_STREAM", first, struct.pack(">I", CANCEL)) + frame("DATA", second, message(b"hi")))

    assert [talk.log for talk in peer.talks] == [["gone"], [b"hi"]]
    assert len(caplog.records) == 1


def test_a_lost_connection_cancels_every_call(peer: Peer) -> None:
    for _ in range(3):
        peer.open()
    peer.connection.lost()

    assert [talk.log for talk in peer.talks] == [["gone"]] * 3
    assert peer.connection.is_closed


def test_a_deadline_ends_the_call_when_it_has_passed_and_not_before(peer: Peer) -> None:
    peer.open(grpc_timeout="200m")
    peer.open(grpc_timeout="5S")
    peer.open()
    assert [talk.call.timeout_seconds for talk in peer.talks] == [0.2, 5.0, None]
    assert peer.connection.deadlines.next == 0.2

    peer.connection.expire(0.199)
    assert peer.frames() == []
    peer.connection.expire(0.2)
    assert status(peer) == ("4", "the deadline has passed")
    assert [talk.log for talk in peer.talks] == [["gone"], [], []]
    assert peer.connection.deadlines.next == 5.0


@pytest.mark.parametrize("value", ["", "5", "S", "123456789S", "-1S", "1s"])
def test_a_deadline_nobody_can_read_is_an_error(peer: Peer, value: str) -> None:
    peer.open(grpc_timeout=value)

    assert status(peer)[0] == "13"


@pytest.mark.parametrize(
    ("encoding", "compress"),
    [("gzip", gzip.compress), ("deflate", zlib.compress)],
    ids=["gzip", "deflate"],
)
def test_compressed_messages_are_read(peer: Peer, encoding: str, compress: type[bytes]) -> None:
    stream = peer.open(grpc_encoding=encoding)
    peer.send(frame("DATA", stream, message(compress(b"hi" * 100), flag=1) + message(b"plain")))

    assert peer.talks[0].log == [b"hi" * 100, b"plain"]


@pytest.mark.parametrize(
    ("encoding", "data", "code"),
    [
        ("snappy", b"", "12"),
        ("identity", message(b"x", flag=1), "13"),
        ("gzip", message(b"not gzip", flag=1), "13"),
        ("gzip", message(gzip.compress(b"hi" * 99)[:-9], flag=1), "13"),
        ("gzip", message(gzip.compress(bytes(1 << 21)), flag=1), "8"),
        ("identity", message(b"x", flag=2), "13"),
        ("identity", struct.pack(">BI", 0, (1 << 20) + 1), "8"),
    ],
    ids=["unknown", "not_named", "not_gzip", "cut_off", "a_bomb", "unknown_flag", "too_long"],
)
def test_a_message_that_cannot_be_read_ends_its_call(peer: Peer, encoding: str, data: bytes, code: str) -> None:
    stream = peer.open(grpc_encoding=encoding)
    peer.connection.receive(frame("DATA", stream, data), 0.0)

    assert status(peer)[0] == code
    assert peer.connection.open_streams == 0
    assert not peer.connection.is_closed


def test_a_stream_that_ends_inside_a_message_is_an_error(peer: Peer) -> None:
    stream = peer.open()
    peer.connection.receive(frame("DATA", stream, message(b"whole")[:-1], 1), 0.0)

    assert status(peer) == ("13", "the stream ended inside a message")
    assert peer.talks[0].log == ["gone"]


def test_an_unknown_method_is_unimplemented(peer: Peer) -> None:
    peer.open(pseudo_path="/test.Echo/Nothing")

    assert status(peer) == ("12", "there is no method /test.Echo/Nothing")


@pytest.mark.parametrize(
    ("headers", "http_status"),
    [
        ({"content_type": "text/html"}, "415"),
        ({"content_type": "application/grpc-web"}, "415"),
        ({"content_type": None}, "415"),
        ({"pseudo_method": "GET"}, "405"),
    ],
    ids=["another_type", "grpc_web", "no_type", "get"],
)
def test_what_is_not_grpc_is_refused_in_plain_http(
    peer: Peer, headers: dict[str, str | None], http_status: str
) -> None:
    peer.open(end=True, **headers)

    head, body, end = peer.frames()
    assert peer.reader.headers(head) == {":status": http_status, "content-type": "text/plain"}
    assert b"gRPC" in body.payload
    assert end.is_end
    assert peer.connection.open_streams == 0


def test_a_long_request_that_is_not_grpc_is_refused_before_its_end(new_peer: NewPeer) -> None:
    peer = new_peer(stream_window_bytes=65_535)
    stream = peer.open(content_type="text/html")
    answers = peer.send(frame("DATA", stream, bytes(16_384)) * 3)

    assert [answer.kind for answer in answers] == ["HEADERS", "DATA", "DATA", "RST_STREAM"]
    assert peer.send(frame("DATA", stream, bytes(16_384), 1)) == []


class Faulty(Talk):
    """A handler that fails where its first message says."""

    def receive(self, message: bytes) -> None:
        super().receive(message)
        if message == b"refuse":
            raise RpcError(StatusCode.INVALID_ARGUMENT, "no")
        if message == b"fail":
            raise KeyError(message)

    def ended(self) -> None:
        super().ended()
        if self.log[0] == b"end":
            raise KeyError("end")


@pytest.mark.parametrize(
    ("content", "expected"),
    [(b"refuse", ("3", "no")), (b"fail", ("2", "the handler failed")), (b"end", ("2", "the handler failed"))],
)
def test_a_handler_that_raises_ends_its_own_call(
    new_peer: NewPeer, caplog: pytest.LogCaptureFixture, content: bytes, expected: tuple[str, str]
) -> None:
    talks: list[Faulty] = []

    def open_faulty(call: Call) -> Conversation:
        talks.append(Faulty(call))
        return talks[-1]

    peer = new_peer(open_faulty)
    first, second = peer.open(), peer.open()
    peer.connection.receive(frame("DATA", first, message(content), 1), 0.0)

    assert status(peer) == expected
    assert [record.levelno for record in caplog.records] == ([] if content == b"refuse" else [logging.ERROR])
    peer.send(frame("DATA", second, message(b"hi")))
    assert talks[1].log == [b"hi"]


def test_a_handler_that_cannot_begin_ends_its_call(new_peer: NewPeer, caplog: pytest.LogCaptureFixture) -> None:
    def refuse(call: Call) -> Conversation:
        raise RpcError(StatusCode.UNAVAILABLE, "later")

    def fail(call: Call) -> Conversation:
        raise KeyError

    for opener, expected in ((refuse, ("14", "later")), (fail, ("2", "the handler failed"))):
        peer = new_peer(opener)
        stream = peer.open()
        assert status(peer) == expected
        assert peer.send(frame("DATA", stream, message(b"late"), 1)) == []
    assert len(caplog.records) == 1


def test_equal_header_blocks_are_decoded_once(peer: Peer) -> None:
    peer.open()  # this block alone says that the table's size is 0
    first, second, other = peer.headers(x_same="yes"), peer.headers(x_same="yes"), peer.headers(x_same="no")
    for stream, block in ((3, first), (5, second), (7, other)):
        peer.send(frame("HEADERS", stream, block, 4))
    heads = [talk.call.head for talk in peer.talks[1:] if isinstance(talk.call, Stream)]

    assert heads[0] is heads[1]
    assert [dict(head.metadata)["x-same"] for head in heads] == ["yes", "yes", "no"]


def test_a_block_that_makes_a_header_table_is_not_remembered() -> None:
    shared = RememberedHeads()
    early, later = (Peer(Limits(max_message_bytes=1000), remembered=shared) for _ in range(2))
    for one in (early, later):
        one.send(PREFACE + settings())
    # The table is given up, then taken again by the very block that uses it.
    early.open()
    early.encoder.header_table_size = 100
    block = early.headers(x_tenant="acme")
    early.send(frame("HEADERS", 3, block, 4))
    later.send(frame("SETTINGS", flags=1))

    assert [answer.error for answer in later.send(frame("HEADERS", 1, block, 4)) if answer.kind == "GOAWAY"] == [9]
    assert len(early.talks) == 2


def test_a_client_that_has_not_heard_of_our_settings_may_use_a_header_table() -> None:
    early = Peer(Limits(max_message_bytes=1000))
    early.send(PREFACE + settings())
    early.encoder.header_table_size = 4096
    for tenant in ("acme", "acme", "globex"):
        early.open(x_tenant=tenant)
    early.send(frame("SETTINGS", flags=1))
    early.encoder.header_table_size = 0
    early.open(x_tenant="acme")

    assert [dict(talk.call.metadata)["x-tenant"] for talk in early.talks] == ["acme", "acme", "globex", "acme"]


def test_a_draining_connection_serves_what_is_on_its_way_and_closes_after_the_last_call(peer: Peer) -> None:
    first = peer.open()
    peer.frames()
    peer.connection.drain()
    goaway, ping = peer.frames()
    assert (goaway.payload[:4], goaway.error) == (b"\x7f\xff\xff\xff", NO_ERROR)

    second = peer.open()
    [last_goaway] = [answer for answer in peer.send(frame("PING", 0, ping.payload, 1)) if answer.kind == "GOAWAY"]
    assert int.from_bytes(last_goaway.payload[:4], "big") == second
    refused = peer.open()
    assert [(answer.kind, answer.stream, answer.error) for answer in peer.frames()] == [("RST_STREAM", refused, 7)]
    for stream, talk in zip((first, second), peer.talks, strict=True):
        assert not peer.connection.is_closed
        peer.send(frame("DATA", stream, b"", 1))
        talk.call.finish()
    peer.connection.close_if_drained()
    assert peer.connection.is_closed


def test_pings_are_answered_and_goaways_of_the_client_change_nothing(peer: Peer) -> None:
    peer.open()
    answers = peer.send(frame("PING", 0, b"01234567") + frame("GOAWAY", 0, bytes(8)))

    assert [(answer.kind, answer.flags, answer.payload) for answer in answers] == [("PING", 1, b"01234567")]
    assert peer.talks[0].log == []


def test_nothing_is_read_after_the_connection_has_failed(peer: Peer) -> None:
    peer.send(frame("PING", 0, bytes(5)) + frame("HEADERS", 1, peer.headers(), 4))

    assert peer.send(frame("HEADERS", 1, peer.headers(), 4)) == []
    assert peer.talks == []
