"""A head that comes again is read as if it were new: whatever differs, and wherever it stands."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from google.protobuf.message import DecodeError
from hypothesis import example, given
from hypothesis import strategies as st

from extproc import heads
from extproc.events import HeadersReceived
from extproc.heads import headers_received, read_head
from extproc.wire_format import nested
from headgate.pb import ext_proc_pb2 as pb

Pair = tuple[str, bytes]
MARK = b"\n\x0cx-request-id\x1a"
SDK: list[Pair] = [
    (":method", b"POST"),
    ("authorization", b"Bearer demo-acme"),
    ("content-length", b"1001"),
    ("traceparent", b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
    ("x-request-id", b"650dabc0-fa65-45b4-90c0-63f37d4c70c7"),
]


def read_again(data: bytes) -> HeadersReceived | None:
    """Read a message of which the same has come before."""
    read_head(data)
    return read_head(data)


def message(headers: Sequence[Pair], *, is_end: bool = False, mode: int = 0) -> bytes:
    values = [pb.HeaderValue(key=name, raw_value=value) for name, value in headers]
    return pb.ProcessingRequest(
        request_headers=pb.HttpHeaders(headers=pb.HeaderMap(headers=values), end_of_stream=is_end),
        protocol_config=pb.ProtocolConfiguration(request_body_mode=mode),  # type: ignore[arg-type]  # any number
    ).SerializeToString()


def changed(headers: Sequence[Pair], **values: bytes) -> list[Pair]:
    return [(name, values.get(name.replace("-", "_"), value)) for name, value in headers]


def content(head: HeadersReceived) -> tuple[object, ...]:
    return (dict(head.headers), head.is_end, head.is_duplex, head.is_buffered)


def read_whole(data: bytes) -> HeadersReceived:
    return headers_received(pb.ProcessingRequest.FromString(data))


def test_a_head_that_comes_for_the_first_time_is_read_as_a_whole() -> None:
    new = message(changed(SDK, authorization=b"Bearer first"))

    assert read_head(new) is None
    assert read_head(new) is not None


def test_a_head_that_comes_again_has_its_own_values() -> None:
    first = read_again(message(SDK))
    own = {"x_request_id": b"r-2", "content_length": b"77", "traceparent": b""}
    second = read_again(message(changed(SDK, **own)))

    assert first is not None
    assert second is not None
    assert first.headers.get("x-request-id") == "650dabc0-fa65-45b4-90c0-63f37d4c70c7"
    assert (second.headers.get("x-request-id"), second.headers.content_length) == ("r-2", 77)
    assert second.headers.get("authorization") == "Bearer demo-acme"


def test_another_credential_is_another_head() -> None:
    read_again(message(SDK))
    other = read_again(message(changed(SDK, authorization=b"Bearer demo-hobby")))

    assert other is not None
    assert other.headers.get("authorization") == "Bearer demo-hobby"


@pytest.mark.parametrize("order", [[4, 3, 2, 1, 0], [2, 0, 4, 1, 3], [4]])
def test_it_does_not_matter_where_the_headers_stand(order: list[int]) -> None:
    headers = [SDK[index] for index in order]
    for data in (message(headers), message(changed(headers, x_request_id=b"\xff\n"))):
        head = read_again(data)
        assert head is not None
        assert content(head) == content(read_whole(data))


@pytest.mark.parametrize(
    "headers",
    [
        [*SDK, ("x-request-id", b"second")],
        [*SDK, ("X-Request-Id", b"second")],
        [("a", MARK + b"\x05"), ("x-request-id", b"real")],
        [("a", MARK + b"\x05-----"), ("x-request-id", b"equal")],
        [("content-length", MARK + b"\x7f")],
        [("x-request-id", b"i" * 128)],
        [("a", b"a" * 5000)],
    ],
    ids=[
        "repeated",
        "repeated in capitals",
        "pretended",
        "pretended of its length",
        "pretended within",
        "long",
        "very long",
    ],
)
def test_what_is_not_as_usual_is_read_as_a_whole(headers: list[Pair]) -> None:
    data = message(headers)
    head = read_again(data)

    assert head is None or content(head) == content(read_whole(data))


def test_heads_of_one_length_may_have_their_values_in_different_places() -> None:
    longer, shorter = b"Bearer " + b"k" * 30, b"Bearer " + b"k" * 10
    one = [("authorization", longer), ("x-request-id", b"r-1"), ("user-agent", b"a" * 10)]
    other = [("authorization", shorter), ("x-request-id", b"r-2"), ("user-agent", b"a" * 30)]
    assert len(message(one)) == len(message(other))
    for headers in (one, other, one, other, changed(one, x_request_id=b"r-3"), changed(other, x_request_id=b"r-4")):
        head = read_again(message(headers))
        assert head is not None
        assert dict(head.headers) == {name: value.decode() for name, value in headers}


def test_a_value_that_is_no_raw_value_is_not_overlooked() -> None:
    raw = pb.HeaderValue(key="content-length", raw_value=b"10")
    both = pb.HeaderValue(key="x-request-id", raw_value=b"raw", value="plain")
    plain = pb.HeaderValue(key="x-request-id", value="plain")
    for header in (both, plain):
        http = pb.HttpHeaders(headers=pb.HeaderMap(headers=[raw, header]))
        data = pb.ProcessingRequest(request_headers=http).SerializeToString()
        head = read_again(data)
        assert head is not None
        assert content(head) == content(read_whole(data))


def test_a_message_that_turns_out_to_be_a_body_is_no_head() -> None:
    empty = nested(b"\x0a", nested(b"\x0a", nested(b"\x0a", b"x-request-id") + b"\x1a\x00"))
    body = pb.ProcessingRequest(request_body=pb.HttpBody(body=b"b")).SerializeToString()

    assert read_again(nested(b"\x12", empty)) is not None
    assert read_again(nested(b"\x12", empty) + body) is None


def test_only_so_many_heads_are_remembered() -> None:
    for number in range(5000):
        read_again(message(changed(SDK, authorization=b"Bearer %d" % number)))

    assert len(heads._known) <= 1024


def test_heads_that_never_come_again_take_little_memory() -> None:
    before = len(heads._known)
    for number in range(10_000):
        assert read_head(message(changed(SDK, authorization=b"Bearer new %d" % number))) is None

    assert len(heads._known) == before
    assert len(heads._seen_once) <= 8192


def test_a_pretended_header_is_no_match_for_a_plain_one_that_reads_like_it_by_chance() -> None:
    pretended, plain = pb.HeaderValue(key="a", raw_value=MARK + b"\x01Z"), pb.HeaderValue(key="x-request-id", value="0")
    http = pb.HttpHeaders(headers=pb.HeaderMap(headers=[pretended, plain]))

    assert read_again(pb.ProcessingRequest(request_headers=http).SerializeToString()) is None


names = st.sampled_from(["content-length", "traceparent", "x-request-id", "X-Request-Id", "a", "authorization"])
values = st.one_of(
    st.binary(max_size=40),
    st.sampled_from([b"", b"0", b"00", b"1", MARK + b"\x02", MARK + b"\x02ab", MARK, b"\n\x0econtent-length"]),
)
some_headers = st.lists(st.tuples(names, values), max_size=6)


@given(
    some_headers,
    st.lists(values, min_size=6, max_size=6),
    st.booleans(),
    st.sampled_from([0, 2, 4]),
    st.integers(0, 40),
)
@example([("x-request-id", b"0123456789")], [b"9876543210"] * 6, False, 0, 3)
def test_a_remembered_head_reads_as_a_new_one(
    headers: list[Pair], others: list[bytes], is_end: bool, mode: int, cut_off: int
) -> None:
    again = [
        (name, other[: len(value)].ljust(len(value), b"0"))
        for (name, value), other in zip(headers, others, strict=False)
    ]
    for data in (message(headers, is_end=is_end, mode=mode), message(again, is_end=is_end, mode=mode)):
        for some in (data, data[: len(data) - cut_off]):
            head = read_again(some)
            try:
                whole = pb.ProcessingRequest.FromString(some)
            except DecodeError:
                assert head is None
                continue
            if head is not None:
                assert whole.WhichOneof("request") == "request_headers"
                assert content(head) == content(headers_received(whole))
