"""Compressed bodies come out as they went in, or are refused at a bounded price."""

from __future__ import annotations

import gzip
import tracemalloc
import zlib
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extproc.inspection.compression import decompress
from extproc.inspection.request import RequestError

LIMIT = 64 * 1024


def raw_deflate(data: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return packer.compress(data) + packer.flush()


WAYS: list[tuple[str, Callable[[bytes], bytes]]] = [
    ("gzip", gzip.compress),
    ("x-gzip", gzip.compress),
    ("GZIP ", gzip.compress),
    ("deflate", zlib.compress),
    ("deflate", raw_deflate),
    ("identity", bytes),
    ("", bytes),
]


def refused(data: bytes, encoding: str, limit: int = LIMIT) -> RequestError:
    with pytest.raises(RequestError) as raised:
        decompress(data, encoding, limit)
    return raised.value


@pytest.mark.parametrize(("encoding", "compress"), WAYS)
@given(data=st.binary(max_size=2000))
def test_what_was_compressed_comes_out_again(encoding: str, compress: Callable[[bytes], bytes], data: bytes) -> None:
    assert decompress(compress(data), encoding, LIMIT) == data


def test_the_members_of_a_gzip_file_are_one_body() -> None:
    assert decompress(gzip.compress(b'{"a":') + gzip.compress(b" 1}"), "gzip", LIMIT) == b'{"a": 1}'


def test_so_many_members_are_no_body() -> None:
    assert refused(gzip.compress(b"") * 65, "gzip").status == 400


@pytest.mark.parametrize(("encoding", "compress"), WAYS[:5])
def test_the_limit_is_on_what_comes_out(encoding: str, compress: Callable[[bytes], bytes]) -> None:
    assert decompress(compress(b"x" * 1000), encoding, 1000) == b"x" * 1000

    assert refused(compress(b"x" * 1001), encoding, 1000).status == 413


def test_members_share_the_limit() -> None:
    half = gzip.compress(b"x" * 501)

    assert refused(half + half, "gzip", 1000).status == 413


@pytest.mark.parametrize(("encoding", "compress"), WAYS[:5])
def test_a_bomb_costs_no_more_memory_than_its_limit(encoding: str, compress: Callable[[bytes], bytes]) -> None:
    bomb = compress(bytes(64 * 1024 * 1024))
    tracemalloc.start()
    try:
        assert refused(bomb, encoding).status == 413
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert peak < 8 * LIMIT


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
@pytest.mark.parametrize("cut", [0, 1, 5, 12, 20])
def test_a_body_that_is_cut_short_is_refused(encoding: str, cut: int) -> None:
    compress = gzip.compress if encoding == "gzip" else zlib.compress
    whole = compress(b"some text " * 20)

    assert refused(whole[:cut], encoding).status == 400


@pytest.mark.parametrize(("encoding", "compress"), WAYS[:5])
def test_what_follows_the_end_is_refused(encoding: str, compress: Callable[[bytes], bytes]) -> None:
    assert refused(compress(b"text") + b"more", encoding).status == 400


@pytest.mark.parametrize("encoding", ["br", "zstd", "gzip, gzip", "snappy"])
def test_other_encodings_are_415(encoding: str) -> None:
    assert refused(b"text", encoding).status == 415
