"""The little HTTP the load generator knows, and how it takes what comes in pieces."""

from __future__ import annotations

import socket

import pytest

from bench.load import Load, LoadFailed
from bench.load_generator import Connection, answer_bytes

ANSWER = b"HTTP/1.1 200 OK\r\nx-decision: admit\r\ncontent-length: 5\r\nserver: envoy\r\n\r\nhello"


@pytest.fixture
def listener() -> socket.socket:
    return socket.create_server(("127.0.0.1", 0))


def connected(
    listener: socket.socket, *, expected: bytes = b"", forbidden: bytes = b""
) -> tuple[Connection, socket.socket]:
    load = Load(
        port=listener.getsockname()[1],
        request=b"GET / HTTP/1.1\r\n\r\n",
        expected=expected,
        forbidden=forbidden,
        seconds=1.0,
        warmup_seconds=0.0,
        connections=1,
    )
    return Connection(load), listener.accept()[0]


def test_an_answer_is_its_head_and_as_many_bytes_as_it_declares() -> None:
    assert answer_bytes(ANSWER) == len(ANSWER)
    assert answer_bytes(ANSWER + b"more") == len(ANSWER)


def test_a_head_that_is_not_complete_says_nothing_yet() -> None:
    assert answer_bytes(b"") is None
    assert answer_bytes(ANSWER[: ANSWER.index(b"\r\n\r\n") + 3]) is None


def test_an_answer_without_a_length_fails_the_load() -> None:
    with pytest.raises(LoadFailed, match="without content-length"):
        answer_bytes(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n")


def test_a_length_in_the_body_is_not_taken_for_one_in_the_head() -> None:
    with pytest.raises(LoadFailed):
        answer_bytes(b"HTTP/1.1 200 OK\r\n\r\n\r\ncontent-length: 5\r\n")


def test_an_answer_in_pieces_is_complete_with_its_last_piece(listener: socket.socket) -> None:
    with listener:
        connection, peer = connected(listener, expected=b"x-decision: admit")
        with connection.socket, peer:
            for piece in (ANSWER[:20], ANSWER[20:-2]):
                peer.sendall(piece)
                assert not connection.receive()
            peer.sendall(ANSWER[-2:])
            assert connection.receive()
            peer.sendall(ANSWER)
            assert connection.receive()


@pytest.mark.parametrize(
    ("answer", "options"),
    [
        (ANSWER.replace(b"200 OK", b"429 Too Many Requests"), {}),
        (ANSWER, {"expected": b"x-decision: degrade"}),
        (ANSWER, {"forbidden": b"x-decision"}),
    ],
)
def test_an_answer_that_is_not_the_expected_one_fails_the_load(
    listener: socket.socket, answer: bytes, options: dict[str, bytes]
) -> None:
    with listener:
        connection, peer = connected(listener, **options)
        with connection.socket, peer:
            peer.sendall(answer)
            with pytest.raises(LoadFailed, match="not the expected answer"):
                connection.receive()


def test_a_closed_connection_fails_the_load(listener: socket.socket) -> None:
    with listener:
        connection, peer = connected(listener)
        with connection.socket:
            peer.close()
            with pytest.raises(LoadFailed, match="closed"):
                connection.receive()
