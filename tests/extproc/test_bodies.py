"""A whole body is read as protobuf reads it, whatever it says and however long it is; anything else is left alone."""

from __future__ import annotations

import pytest
from google.protobuf.message import DecodeError
from hypothesis import example, given
from hypothesis import strategies as st

from extproc.bodies import read_body
from extproc.events import BodyReceived
from headgate.pb import ext_proc_pb2 as pb


def message(body: bytes, *, is_end: bool = True) -> bytes:
    """As Envoy writes it."""
    http = pb.HttpBody(body=body, end_of_stream=is_end)
    return pb.ProcessingRequest(request_body=http, metadata_context=pb.Metadata()).SerializeToString()


@pytest.mark.parametrize("size", [1, 2, 100, 118, *range(120, 130), 1001, *range(16_376, 16_390), 2_097_150, 2_097_155])
def test_a_body_of_any_length_is_read(size: int) -> None:
    body = bytes(range(256)) * (size // 256 + 1)

    assert read_body(message(body[:size])) == BodyReceived(body[:size], is_end=True)


@pytest.mark.parametrize(
    "other",
    [
        b"",
        b"\x22",
        message(b""),
        message(b"{}", is_end=False),
        message(b"{}")[:-1],
        message(b"{}")[:-2],
        pb.ProcessingRequest(request_body=pb.HttpBody(body=b"{}", end_of_stream=True)).SerializeToString(),
        pb.ProcessingRequest(response_body=pb.HttpBody(body=b"{}", end_of_stream=True)).SerializeToString(),
        pb.ProcessingRequest(request_headers=pb.HttpHeaders(end_of_stream=True)).SerializeToString(),
    ],
)
def test_what_is_not_as_usual_is_left_to_be_read_as_a_whole(other: bytes) -> None:
    assert read_body(other) is None


parts = st.sampled_from(
    [b'"', b"\n", b"\x10\x01", b"B\x00", b"\x10\x01B\x00", b"\x02", b"\x05", b"\x08", b"{}", b"\x22\x06\n\x02"]
)


@given(st.lists(parts, max_size=10).map(b"".join) | st.binary(max_size=40).map(message))
@example(b"\x22\x06\n\x02{}\x10\x01B\x00")
def test_what_is_read_is_what_protobuf_reads(data: bytes) -> None:
    received = read_body(data)
    if received is None:
        return
    try:
        whole = pb.ProcessingRequest.FromString(data)
    except DecodeError:
        pytest.fail("no message at all")
    assert whole.WhichOneof("request") == "request_body"
    assert (whole.request_body.body, whole.request_body.end_of_stream) == (received.body, received.is_end)
