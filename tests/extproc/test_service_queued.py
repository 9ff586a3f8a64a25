"""Requests that wait in a service's queue: how they are answered, in which order, and what ends the wait."""

from __future__ import annotations

import re
from collections.abc import Callable

import grpc

from headgate.policy.model import Capacity, Policy, Queue, Rung
from tests.extproc.sidecars import MODULE_LOOP, START, Sidecar, body, full, headers, kind, refusal_of, trailers

pytestmark = MODULE_LOOP


async def test_a_queued_request_is_admitted_when_another_ends(sidecar: Sidecar) -> None:
    first, _ = await full(sidecar)
    waiting = sidecar.open()
    await waiting.queued(sidecar)

    await first.end()
    response = await waiting.reply()

    metadata = response.dynamic_metadata["headgate"]
    assert kind(response) == "request_body"
    assert (metadata["verdict"], sidecar.held()) == ("QUEUE", 2)
    assert metadata["queue_wait_seconds"] > 0


async def test_messages_that_arrive_in_the_queue_are_answered_after_it(sidecar: Sidecar) -> None:
    first, _ = await full(sidecar)
    waiting = sidecar.open()
    await waiting.queued(sidecar)
    await waiting.call.write(body())
    await waiting.call.write(trailers())

    await first.end()

    assert [kind(await waiting.reply()) for _ in range(3)] == ["request_body", "request_body", "response_trailers"]
    assert await waiting.end() is grpc.StatusCode.OK


async def test_a_queue_that_is_full_and_cheaper_places_that_are_too_end_in_a_429(
    start: START, revise: Callable[..., Policy]
) -> None:
    none_left = {"capacity": Capacity(requests=0)}
    sidecar = await start(revise(clusters={"fast": none_left, "tiny": none_left}))
    await full(sidecar)
    for _ in range(2):
        await sidecar.open().queued(sidecar)
    refused = sidecar.open()
    await refused.ask(headers())

    assert refusal_of(await refused.ask(body())) == (429, "cluster_concurrency")


async def test_a_wait_that_ends_in_vain_goes_down_the_ladder(start: START, revise: Callable[..., Policy]) -> None:
    sidecar = await start(revise(tiers={"premium": {"queue": Queue(max_wait_seconds=0.01, max_depth=2)}}))
    await full(sidecar)
    waiting = sidecar.open()
    await waiting.ask(headers())

    metadata = (await waiting.ask(body())).dynamic_metadata["headgate"]

    assert metadata["cluster"] == "fast"
    assert re.fullmatch(r"degrade; reason=queue_timeout; wait=\d+ms", metadata["decision"])


async def test_a_client_whose_time_is_up_before_it_could_wait_is_told_so_in_a_429(
    start: START, revise: Callable[..., Policy]
) -> None:
    sidecar = await start(revise(tiers={"premium": {"on_overload": (Rung.QUEUE, Rung.REJECT)}}))
    await full(sidecar)
    late = sidecar.open()
    await late.ask(headers(**{"grpc-timeout": "0m"}))

    assert refusal_of(await late.ask(body())) == (429, "client_deadline")
    assert sidecar.depth == 0
