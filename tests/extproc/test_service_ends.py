"""The ends of a stream: a client that leaves, a connection that breaks, a service that drains."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import grpc
import pytest

from extproc.events import Verdict
from headgate.policy.model import Capacity, Policy
from headgate.store import LeaseRequest
from tests.extproc.sidecars import MODULE_LOOP, START, Sidecar, body, full, headers, kind, refusal_of, until

pytestmark = MODULE_LOOP


@pytest.mark.parametrize("how", ["half-close", "cancel"])
async def test_a_client_that_leaves_the_queue_is_gone_at_once_and_gets_no_slot(sidecar: Sidecar, how: str) -> None:
    first, second = await full(sidecar)
    leaving = sidecar.open()
    await leaving.queued(sidecar)

    if how == "cancel":
        leaving.call.cancel()
    else:
        await leaving.call.done_writing()
    await until(lambda: sidecar.depth == 0 and sidecar.service.open_streams == 2)

    await first.end()
    await until(lambda: sidecar.held() == 1)
    await second.end()
    await sidecar.is_idle()
    assert [decision.verdict for decision in sidecar.decisions] == [Verdict.ADMIT] * 2


@pytest.mark.parametrize("how", ["half-close", "cancel"])
@pytest.mark.parametrize("stage", ["nothing", "headers", "admitted"])
async def test_a_client_may_leave_at_any_time_and_its_slot_goes_back_once(
    sidecar: Sidecar, how: str, stage: str
) -> None:
    staying, leaving = sidecar.open(), sidecar.open()
    await staying.admitted()
    if stage == "admitted":
        await leaving.admitted()
    elif stage == "headers":
        await leaving.ask(headers())
    else:
        await leaving.call.wait_for_connection()

    if how == "cancel":
        leaving.call.cancel()
    else:
        await leaving.call.done_writing()

    await until(lambda: sidecar.service.open_streams == 1 and sidecar.held() == 1)
    await staying.end()
    await sidecar.is_idle()


async def test_a_connection_that_breaks_gives_all_its_slots_back(sidecar: Sidecar) -> None:
    await full(sidecar)
    await sidecar.open().queued(sidecar)

    await sidecar.channel.close()

    await sidecar.is_idle()


async def test_draining_ends_an_admitted_stream_normally_and_its_request_counts_on(sidecar: Sidecar) -> None:
    streams = await full(sidecar)

    sidecar.service.drain()

    # Any other end would cut the response the client is reading.
    assert [await stream.status() for stream in streams] == [grpc.StatusCode.OK] * 2
    await sidecar.is_idle(running_on=2)


async def test_draining_answers_a_queued_request_before_its_stream_ends(sidecar: Sidecar) -> None:
    await full(sidecar)
    waiting = sidecar.open()
    await waiting.queued(sidecar)

    sidecar.service.drain()

    assert refusal_of(await waiting.reply()) == (503, "shutting_down")
    assert await waiting.status() is grpc.StatusCode.OK
    await sidecar.is_idle(running_on=2)


async def test_draining_lets_no_request_pass_whose_body_is_still_to_come(sidecar: Sidecar) -> None:
    admitted, refused = sidecar.open(), sidecar.open()
    await admitted.ask(headers())
    await refused.ask(headers())

    sidecar.service.drain()

    assert kind(await admitted.ask(body())) == "request_body"
    assert await admitted.status() is grpc.StatusCode.OK
    assert refusal_of(await refused.ask(body(max_tokens=0))) == (400, "bad_request")
    assert await refused.status() is grpc.StatusCode.OK
    await sidecar.is_idle(running_on=1)


async def test_a_request_that_comes_while_draining_is_decided_and_let_go_but_never_queued(
    start: START, revise: Callable[..., Policy]
) -> None:
    sidecar = await start(revise(clusters={"best": {"capacity": Capacity(requests=1)}}))
    held: list[Any] = []
    sidecar.store.acquire(LeaseRequest(tenant="other", tier="premium", cluster="best"), held.append)
    sidecar.service.drain()
    admitted, refused = sidecar.open(), sidecar.open()

    await admitted.admitted("globex")
    await refused.ask(headers())

    assert await admitted.status() is grpc.StatusCode.OK
    assert refusal_of(await refused.ask(body())) == (503, "shutting_down")
    assert await refused.status() is grpc.StatusCode.OK
    sidecar.store.release(held.pop())
    await sidecar.is_idle(running_on=1)


async def test_the_servers_own_end_closes_every_stream(sidecar: Sidecar) -> None:
    await full(sidecar)
    await sidecar.open().queued(sidecar)

    sidecar.service.drain()
    await sidecar.server.drain(1)

    await sidecar.is_idle(running_on=2)
