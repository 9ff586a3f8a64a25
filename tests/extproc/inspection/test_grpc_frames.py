"""Messages come out of a gRPC body whole, however it was cut, and nothing else does."""

from __future__ import annotations

import gzip
import struct
import tracemalloc
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extproc.inspection.grpc_frames import FrameReader, framed, only_message
from extproc.inspection.request import RequestError

LIMIT = 1000


def compressed(message: bytes) -> bytes:
    return b"\1" + struct.pack(">I", len(message)) + message


def refused(body: bytes, encoding: str = "") -> RequestError:
    with pytest.raises(RequestError) as raised:
        only_message(body, encoding, LIMIT)
    return raised.value


@given(messages=st.lists(st.binary(max_size=40), max_size=6), cuts=st.lists(st.integers(1, 50), max_size=30))
def test_messages_arrive_in_order_however_the_body_is_cut(messages: list[bytes], cuts: list[int]) -> None:
    body, reader, found = b"".join(map(framed, messages)), FrameReader("", LIMIT), []
    for size in cuts:
        found += reader.feed(body[:size])
        body = body[size:]
    found += reader.feed(body)

    assert found == messages
    assert reader.is_at_boundary


def test_a_message_is_given_out_as_soon_as_it_is_whole() -> None:
    reader = FrameReader("", LIMIT)

    assert reader.feed(framed(b"one")[:-1]) == []
    assert not reader.is_at_boundary
    assert reader.feed(framed(b"one")[-1:] + framed(b"two")[:3]) == [b"one"]
    assert not reader.is_at_boundary


@pytest.mark.parametrize(("encoding", "compress"), [("gzip", gzip.compress), ("deflate", zlib.compress)])
def test_a_compressed_message_comes_out_plain(encoding: str, compress: type[bytes]) -> None:
    assert only_message(compressed(compress(b"hello")), encoding, LIMIT) == b"hello"
    assert only_message(framed(b"hello"), encoding, LIMIT) == b"hello"


@pytest.mark.parametrize(
    ("body", "encoding", "status"),
    [
        (b"", "", 400),
        (b"\0\0\0", "", 400),
        (framed(b"one")[:-1], "", 400),
        (framed(b"one") + framed(b"two"), "", 400),
        (framed(b"one") + b"\0", "", 400),
        (b"\2\0\0\0\1x", "", 400),
        (b'{"inputs": []}', "", 400),
        (compressed(gzip.compress(b"x")), "", 400),
        (compressed(gzip.compress(b"x")), "identity", 400),
        (compressed(b"not gzip"), "gzip", 400),
        (compressed(b"x"), "snappy", 415),
        (framed(b"x" * (LIMIT + 1)), "", 413),
        (compressed(gzip.compress(b"x" * (LIMIT + 1))), "gzip", 413),
        (b"\0\xff\xff\xff\xff", "", 413),
    ],
)
def test_a_body_that_is_not_one_message_is_refused(body: bytes, encoding: str, status: int) -> None:
    assert refused(body, encoding).status == status


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
def test_many_bombs_in_one_body_cost_no_more_than_one(encoding: str) -> None:
    limit = 256 * 1024
    bomb = (gzip.compress if encoding == "gzip" else zlib.compress)(bytes(limit))
    tracemalloc.start()
    try:
        with pytest.raises(RequestError) as raised:
            only_message(compressed(bomb) * 200, encoding, limit)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert raised.value.status == 413
    assert peak < 5 * limit


def test_a_message_too_long_is_refused_at_its_length() -> None:
    with pytest.raises(RequestError):
        FrameReader("", LIMIT).feed(framed(b"x" * (LIMIT + 1))[:5])
