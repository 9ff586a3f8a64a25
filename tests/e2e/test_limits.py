"""Sizes through the real Envoy: what is too large is refused in the client's format, before buffering where known."""

from __future__ import annotations

import json
import socket

import hpack
import pytest

from extproc.inspection.target import STREAM_INFER_PATH
from headgate_cli.demo.cases import BEST_EFFORT
from headgate_cli.demo.client import Client
from headgate_cli.stack import Stack
from tests.headgate.transport.peer import PREFACE, Frame, Reader, frame, settings

MEBIBYTE = 1024 * 1024
END_STREAM, END_HEADERS = 1, 4


def chat(size_bytes: int) -> bytes:
    frame = json.dumps({"model": "assistant", "messages": [{"role": "user", "content": ""}], "max_tokens": 1})
    return frame.replace('"content": ""', f'"content": "{"a" * (size_bytes - len(frame))}"').encode()


def exchange(stack: Stack, head: str, body: bytes = b"") -> tuple[int, dict[str, object]]:
    """What Envoy answers to these very bytes."""
    with socket.create_connection(("127.0.0.1", stack.settings.ports.envoy), timeout=20) as connection:
        connection.sendall(head.encode() + body)
        answer = connection.makefile("rb")
        status = int(answer.readline().split()[1])
        length = 0
        while line := answer.readline().strip().lower():
            if line.startswith(b"content-length:"):
                length = int(line.partition(b":")[2])
        return status, json.loads(answer.read(length))


def exchange_frames(stack: Stack, *request: bytes) -> tuple[dict[str, str], bytes]:
    """The headers and the body Envoy answers on the first stream of an HTTP/2 connection."""
    reader, seen = Reader(), list[Frame]()
    with socket.create_connection(("127.0.0.1", stack.settings.ports.envoy), timeout=20) as connection:
        connection.sendall(PREFACE + settings() + b"".join(request))
        while not any(part.is_end for part in seen):
            data = connection.recv(65536)
            assert data, seen
            seen += reader.frames(data)
    [head, *_] = (reader.headers(part) for part in seen if part.kind == "HEADERS")
    return head, b"".join(part.payload for part in seen if part.kind == "DATA")


def test_a_body_of_a_tiers_size_goes_through(client: Client) -> None:
    answer = client.post("/v1/chat/completions", chat(MEBIBYTE - 1), key=BEST_EFFORT)

    # As large as the tier may send, and more tokens than the model takes.
    assert answer.status == 400
    assert b"max_seq_len" in answer.body


def test_a_larger_body_is_refused_by_its_declared_length_before_any_of_it_is_sent(stack: Stack) -> None:
    head = (
        "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\n"
        f"authorization: Bearer {BEST_EFFORT}\r\ncontent-length: {MEBIBYTE + 1}\r\n\r\n"
    )

    status, body = exchange(stack, head)

    assert status == 413
    assert body["error"]["code"] == "request_too_large"  # type: ignore[index]


def test_a_larger_body_of_undeclared_length_is_refused_once_it_is_there(stack: Stack) -> None:
    body = chat(MEBIBYTE + 1)
    head = (
        "POST /v1/messages HTTP/1.1\r\nhost: x\r\n"
        f"x-api-key: {BEST_EFFORT}\r\ntransfer-encoding: chunked\r\n\r\n{len(body):x}\r\n"
    )

    status, answer = exchange(stack, head, body + b"\r\n0\r\n\r\n")

    assert status == 413
    assert answer["error"]["type"] == "request_too_large"  # type: ignore[index]


def frames(path: str, data: bytes, **more: str) -> list[bytes]:
    """A request that ends in trailers."""
    pseudo = {":method": "POST", ":scheme": "http", ":path": path, ":authority": "x"}
    head = pseudo | {"authorization": f"Bearer {BEST_EFFORT}"} | {n.replace("_", "-"): v for n, v in more.items()}
    encoder = hpack.Encoder()
    return [
        frame("HEADERS", 1, encoder.encode(head.items()), END_HEADERS),
        frame("DATA", 1, data),
        frame("HEADERS", 1, encoder.encode([("x-checksum", "1")]), END_HEADERS | END_STREAM),
    ]


def test_a_body_that_trailers_follow_is_read_whole(stack: Stack) -> None:
    head, body = exchange_frames(stack, *frames("/v1/chat/completions", chat(200)))

    assert (head[":status"], "choices" in json.loads(body)) == ("200", True)


@pytest.mark.parametrize("data", [b"", b"\0\0\0\0\x09half"])
def test_a_grpc_stream_that_trailers_end_before_a_message_is_refused_and_never_passes(
    stack: Stack, data: bytes
) -> None:
    head, _ = exchange_frames(stack, *frames(STREAM_INFER_PATH, data, content_type="application/grpc", te="trailers"))

    assert head["x-headgate-decision"] == "reject; reason=bad_request"
    assert head["grpc-status"] == "3"


def test_more_than_a_hundred_headers_are_refused_by_envoy_itself(stack: Stack) -> None:
    headers = "".join(f"x-h{number}: 1\r\n" for number in range(120))

    status, body = exchange(stack, f"GET /v1/models HTTP/1.1\r\nhost: x\r\n{headers}\r\n")

    assert status == 431
    assert body["error"]["code"] == "headers_too_large"  # type: ignore[index]
