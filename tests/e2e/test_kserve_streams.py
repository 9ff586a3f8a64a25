"""A gRPC stream through the real Envoy and sidecar to a server that does as it is told: what arrives, what ends it."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import pytest

from headgate_cli.demo.cases import INTERACTIVE, PREMIUM, Demo
from headgate_cli.demo.client import Client
from headgate_cli.stack import Stack

Talks = Callable[[str], Any]
ObedientTriton = Any
FAST, BEST = (f'headgate_leases{{name="{name}",scope="cluster_concurrency"}}' for name in ("fast", "best"))
QUEUED = 'headgate_queue_depth{cluster="best",tier="premium"}'
FREE_AGAIN_SECONDS = 30.0


@pytest.fixture
def look(stack: Stack) -> Iterator[Demo]:
    """The sidecar's metrics, with nothing held by the test before."""
    with Client(stack.url, stack.supervisor.log("headgate")) as client:
        demo = Demo("streams", client, stack.admin_url)
        assert demo.wait_until("headgate_open_streams", lambda count: count == 0.0)
        yield demo


def is_free(look: Demo, metric: str) -> bool:
    return look.wait_until(metric, lambda count: count == 0.0, within_seconds=FREE_AGAIN_SECONDS)


def limits(obedient: ObedientTriton) -> list[int]:
    return [struct.unpack("<i", request.raw_input_contents[1])[0] for request in obedient.requests]


def test_every_message_is_renamed_and_capped(talk: Talks, obedient: ObedientTriton) -> None:
    stream = talk(INTERACTIVE)
    for number, max_tokens in enumerate((100_000, 7, 100_000)):
        stream.say(max_tokens=max_tokens, id=str(number))
        assert stream.hear() == str(number)

    assert [request.model_name for request in obedient.requests] == ["fast"] * 3
    assert limits(obedient) == [400, 7, 400]
    assert obedient.headers[0]["x-headgate-tenant"] == "globex"
    assert "authorization" not in obedient.headers[0]


@pytest.mark.parametrize("size", [1, 20_000, 1_000_000, 4_000_000])
def test_messages_of_any_size_arrive_whole(talk: Talks, obedient: ObedientTriton, size: int) -> None:
    stream = talk(INTERACTIVE)
    stream.say("x")
    stream.hear()

    stream.say("x" * size)
    stream.hear()

    assert len(obedient.requests[1].raw_input_contents[0]) == size + 4


def test_a_first_message_of_many_pieces_is_read_whole(talk: Talks, obedient: ObedientTriton) -> None:
    stream = talk(PREMIUM)
    stream.say("word " * 60_000)
    stream.hear()

    assert len(obedient.requests[0].raw_input_contents[0]) == 300_004


def test_sequences_go_through_as_they_are(talk: Talks, obedient: ObedientTriton) -> None:
    stream = talk(INTERACTIVE)
    stream.say(parameters={"sequence_id": {"int64_param": 42}, "sequence_start": {"bool_param": True}})
    stream.hear()

    parameters = obedient.requests[0].parameters
    assert (parameters["sequence_id"].int64_param, parameters["sequence_start"].bool_param) == (42, True)


@pytest.mark.parametrize(
    ("end", "code"),
    [
        ("half_close", grpc.StatusCode.OK),
        ("cancel", grpc.StatusCode.CANCELLED),
        ("abort", grpc.StatusCode.UNAVAILABLE),
        ("reset", None),
    ],
)
def test_however_a_stream_ends_its_slot_is_free_again(
    talk: Talks, look: Demo, end: str, code: grpc.StatusCode | None
) -> None:
    stream = talk(INTERACTIVE)
    stream.say()
    stream.hear()
    assert look.metric(FAST) == 1.0

    if end == "half_close":
        stream.half_close()
        assert list(stream.call) == []
    elif end == "cancel":
        stream.call.cancel()
    else:
        stream.say(id=end)
        with pytest.raises(grpc.RpcError):
            stream.hear()

    assert is_free(look, FAST)
    assert code is None or stream.call.code() is code


def test_a_stream_that_waits_for_a_slot_gets_it_with_all_it_has_sent(
    talk: Talks, look: Demo, obedient: ObedientTriton
) -> None:
    running = _filled(talk, look)
    waiting = talk(PREMIUM)
    waiting.say(id="first")
    assert look.wait_until(QUEUED, lambda count: count == 1.0)
    waiting.say("x" * 200_000, id="second")

    running[0].call.cancel()

    assert [waiting.hear(), waiting.hear()] == ["first", "second"]
    assert look.metric(BEST) == 32.0


def test_a_stream_whose_client_leaves_the_queue_is_gone(talk: Talks, look: Demo) -> None:
    _filled(talk, look)
    waiting = talk(PREMIUM)
    waiting.say()
    assert look.wait_until(QUEUED, lambda count: count == 1.0)
    waiting.say("x" * 200_000)

    waiting.call.cancel()

    assert look.wait_until(QUEUED, lambda count: count == 0.0, within_seconds=FREE_AGAIN_SECONDS)


def _filled(talk: Talks, look: Demo) -> list[Any]:
    """Streams in every slot of the cluster `best`."""
    running = [talk(PREMIUM) for _ in range(32)]
    for stream in running:
        stream.say()
        stream.hear()
    assert look.metric(BEST) == 32.0
    return running
