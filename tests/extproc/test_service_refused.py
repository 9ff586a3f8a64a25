"""Requests a service refuses at once: those that cannot run, and those for which no slot is left."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable

import grpc
import pytest

from headgate.policy.model import Capacity, Policy, TenantLimits
from headgate.store import Scope
from tests.extproc.sidecars import MODULE_LOOP, START, Sidecar, Stream, body, headers, kind, refusal_of

pytestmark = MODULE_LOOP


@pytest.mark.parametrize(
    ("first", "second", "status", "reason"),
    [
        (headers("nobody"), None, 401, "invalid_credential"),
        (headers(path="/v2/models/nope/generate"), None, 404, "unknown_model"),
        (headers("hobby", **{"content-length": "65537"}), None, 413, "body_too_large"),
        (headers("hobby"), body(b" " * 65_537), 413, "body_too_large"),
        (headers(), body(model="gpt-9"), 404, "unknown_model"),
        (headers(), body(b"no healthy upstream"), 400, "bad_request"),
        (headers(), body(b"[" * 100_000), 400, "bad_request"),
        (headers(), body(b"\xff\xfe"), 400, "bad_request"),
        (headers(), body(b""), 400, "bad_request"),
        (headers(), body(max_tokens=-1), 400, "bad_request"),
    ],
)
async def test_a_request_that_cannot_run_is_answered_and_takes_no_slot(
    sidecar: Sidecar, first: bytes, second: bytes | None, status: int, reason: str
) -> None:
    stream = sidecar.open()
    response = await stream.ask(first)
    if second is not None:
        assert kind(response) == "request_headers"
        response = await stream.ask(second)

    assert refusal_of(response) == (status, reason)
    assert json.loads(response.immediate_response.body)["error"]
    assert await stream.end() is grpc.StatusCode.OK
    await sidecar.is_idle()
    assert [decision.status for decision in sidecar.decisions] == [status]


async def test_a_tier_without_queue_is_told_to_come_back(sidecar: Sidecar) -> None:
    admitted, refused = sidecar.open(), sidecar.open()
    await refused.ask(headers("hobby"))
    await admitted.admitted("hobby")

    response = await refused.ask(body())

    assert refusal_of(response) == (429, "tenant_concurrency")
    sent = {o.header.key: o.header.raw_value for o in response.immediate_response.headers.set_headers}
    assert sent["retry-after"] == b"1"
    assert response.immediate_response.grpc_status.status == grpc.StatusCode.RESOURCE_EXHAUSTED.value[0]
    await refused.end()
    await admitted.end()
    await sidecar.is_idle()


async def test_a_burst_gets_exactly_the_slots_there_are(start: START, revise: Callable[..., Policy]) -> None:
    sidecar = await start(
        revise(
            tenants={"hobby": {"limits": TenantLimits(concurrency=3)}}, clusters={"standard": {"capacity": Capacity()}}
        )
    )
    streams = [sidecar.open() for _ in range(20)]

    async def outcome(stream: Stream) -> str | None:
        response = await stream.ask(headers("hobby"))
        return kind(await stream.ask(body()) if kind(response) == "request_headers" else response)

    outcomes = await asyncio.gather(*map(outcome, streams))

    assert sorted(map(str, outcomes)) == ["immediate_response"] * 17 + ["request_body"] * 3
    assert sidecar.store.in_flight(Scope.TENANT, "hobby") == 3
    await asyncio.gather(*(stream.end() for stream in streams))
    await sidecar.is_idle()
