"""The ext_proc stream is the lease: open as long as the HTTP request, whatever ends it."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

Stack = Any

FIRST, SECOND = b'data: {"text": 1}\n\n', b'data: {"text": 2}\n\n'


@pytest.fixture
def streaming(stack: Stack) -> Stack:
    """The model sends one event and waits."""

    async def event() -> asyncio.Event:
        return asyncio.Event()

    model = stack.models["standard"]
    model.release = stack.loop.run(event())
    model.content_type = "text/event-stream"
    model.chunks = (FIRST, SECOND)
    return stack


def _send_another(stack: Stack, say: SimpleNamespace) -> None:
    """A whole request later, whatever Envoy was about to do with the first stream it has done."""
    stack.extproc.on_headers = lambda _: say.routed_at_once("best")
    stack.post(body=b"")
    stack.wait_until(lambda: stack.extproc.open_streams <= 1, "end of the other stream")


async def _set(event: asyncio.Event) -> None:
    event.set()


@pytest.mark.parametrize("body", [b"{}", b""])
def test_the_lease_lasts_until_the_last_chunk(streaming: Stack, say: SimpleNamespace, body: bytes) -> None:
    if not body:
        streaming.extproc.on_headers = lambda _: say.routed_at_once("standard")
    with streaming.open("POST", "/v1/x", body) as response:
        assert response.read1() == FIRST
        _send_another(streaming, say)
        assert streaming.extproc.open_streams == 1

        streaming.loop.run(_set(streaming.models["standard"].release))
        assert response.read() == SECOND

    streaming.wait_until(lambda: streaming.extproc.open_streams == 0, "end of the lease")


def test_the_lease_ends_when_the_client_leaves_mid_stream(streaming: Stack, say: SimpleNamespace) -> None:
    with streaming.open("POST", "/v1/x", b"{}") as response:
        response.read1()

    streaming.wait_until(lambda: streaming.extproc.open_streams == 0, "end of the lease", 1.0)


def test_a_model_that_falls_silent_is_given_up_on(streaming: Stack, say: SimpleNamespace) -> None:
    with streaming.open("POST", "/v1/x", b"{}") as response:
        assert response.read1() == FIRST
        streaming.wait_until(lambda: streaming.extproc.open_streams == 0, "end of the lease")

    assert streaming.record().common_properties.response_flags.stream_idle_timeout


def test_a_request_is_held_longer_than_a_running_one_may_be_silent(stack: Stack, say: SimpleNamespace) -> None:
    stack.extproc.delay_seconds = say.routed_idle_seconds * 1.2

    assert stack.post().status == 200


def test_two_messages_are_all_a_request_costs(stack: Stack) -> None:
    before = stack.statistic("http.headgate.ext_proc.stream_msgs_sent")

    stack.post()

    assert stack.statistic("http.headgate.ext_proc.stream_msgs_sent") - before == 2
