"""The service behind each real gRPC server, asked by a real gRPC client: the stream of a request is its lease."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace

import grpc
import pytest

from extproc.events import Verdict
from headgate.pb import ext_proc_pb2 as pb
from headgate.policy.model import Policy, Rung
from headgate.store import Scope
from tests.extproc.sidecars import MODULE_LOOP, START, Sidecar, body, full, headers, kind, refusal_of, trailers, until

pytestmark = MODULE_LOOP


def in_mode(mode: str) -> bytes:
    """Headers by which Envoy tells how it sends the body."""
    request = pb.ProcessingRequest.FromString(headers())
    request.protocol_config.request_body_mode = pb.ProcessingMode.BodySendMode.Value(mode)
    return request.SerializeToString()


def without_end(content: bytes) -> bytes:
    """A body that something follows."""
    return pb.ProcessingRequest(request_body=pb.HttpBody(body=content)).SerializeToString()


def without_id() -> bytes:
    """Headers that do not name the request."""
    request = pb.ProcessingRequest.FromString(headers())
    known = request.request_headers.headers.headers
    known.remove(next(header for header in known if header.key == "x-request-id"))
    return request.SerializeToString()


async def test_a_request_is_admitted_with_its_route_its_body_and_its_metadata(sidecar: Sidecar) -> None:
    stream = sidecar.open()

    assert await stream.ask(headers()) == pb.ProcessingResponse(request_headers=pb.HeadersResponse())
    response = await stream.ask(body(max_tokens=5000))

    common = response.request_body.response
    sent = {option.header.key: option.header.raw_value for option in common.header_mutation.set_headers}
    assert sent["x-model-cluster"] == b"best.openai"
    assert sent["content-length"] == str(len(common.body_mutation.body)).encode()
    assert json.loads(common.body_mutation.body)["max_tokens"] == 1000
    assert common.clear_route_cache
    assert response.dynamic_metadata["headgate"]["decision"] == "admit"
    assert sidecar.held() == 1
    assert await stream.end() is grpc.StatusCode.OK
    await sidecar.is_idle()
    assert [decision.verdict for decision in sidecar.decisions] == [Verdict.ADMIT]


async def test_the_slot_is_held_while_the_stream_is_open_and_no_longer(sidecar: Sidecar) -> None:
    stream = sidecar.open()
    await stream.admitted()

    assert kind(await stream.ask(trailers())) == "response_trailers"
    assert sidecar.held() == 1

    await stream.call.done_writing()
    await until(lambda: sidecar.held() == 0)


async def test_every_message_gets_one_reply_and_a_repeated_last_body_one_that_changes_nothing(sidecar: Sidecar) -> None:
    stream = sidecar.open()
    await stream.admitted()

    for message, phase in (
        (body(), "request_body"),
        (b"\x22\x02\x10\x01", "request_body"),
        (trailers(), "response_trailers"),
    ):
        response = await stream.ask(message)
        assert kind(response) == phase
        assert not response.request_body.response.HasField("header_mutation")
    assert await stream.end() is grpc.StatusCode.OK
    assert len(sidecar.decisions) == 1
    await sidecar.is_idle()


async def test_messages_sent_without_waiting_are_answered_in_their_order(sidecar: Sidecar) -> None:
    stream = sidecar.open()
    for message in (headers(), body(), body(), trailers()):
        await stream.call.write(message)

    phases = [kind(await stream.reply()) for _ in range(4)]

    assert phases == ["request_headers", "request_body", "request_body", "response_trailers"]
    assert await stream.end() is grpc.StatusCode.OK


async def test_a_buffered_body_is_whole_though_trailers_follow(sidecar: Sidecar) -> None:
    stream = sidecar.open()

    assert kind(await stream.ask(in_mode("BUFFERED"))) == "request_headers"
    response = await stream.ask(without_end(b'{"model":"assistant","messages":[{"content":"Hi"}]}'))
    assert response.request_body.response.HasField("header_mutation")
    assert kind(await stream.ask(trailers("request"))) == "request_trailers"

    assert await stream.end() is grpc.StatusCode.OK
    await sidecar.is_idle()


@pytest.mark.parametrize("mode", ["STREAMED", "BUFFERED_PARTIAL"])
async def test_an_envoy_that_sends_a_body_by_and_by_is_told_to_buffer_it(sidecar: Sidecar, mode: str) -> None:
    stream = sidecar.open()
    await stream.ask(in_mode(mode))

    response = await stream.ask(without_end(b'{"model":"assist'))

    assert refusal_of(response) == (400, "bad_request")
    assert b"BUFFERED" in response.immediate_response.body
    assert await stream.end() is grpc.StatusCode.OK
    await sidecar.is_idle()


async def test_a_request_without_a_body_is_decided_on_its_headers_in_one_reply(sidecar: Sidecar) -> None:
    stream = sidecar.open()
    asked = pb.ProcessingRequest.FromString(headers("hobby", "/v1/files"))
    asked.request_headers.end_of_stream = True

    common = (await stream.ask(asked.SerializeToString())).request_headers.response

    stamped = {option.header.key for option in common.header_mutation.set_headers}
    assert stamped == {"x-headgate-tenant", "x-headgate-tier"}
    assert common.clear_route_cache
    assert sidecar.store.in_flight(Scope.TENANT, "hobby") == 1
    assert await stream.end() is grpc.StatusCode.OK
    await until(lambda: sidecar.store.in_flight(Scope.TENANT, "hobby") == 0)


@pytest.mark.parametrize("asked", [headers(), without_id()], ids=["the same id", "no id"])
async def test_a_request_is_known_by_its_stream_whatever_its_id(sidecar: Sidecar, asked: bytes) -> None:
    first, second = sidecar.open(), sidecar.open()
    for stream in (first, second):
        await stream.ask(asked)
        assert kind(await stream.ask(body())) == "request_body"

    assert sidecar.held() == 2
    await first.end()
    await until(lambda: sidecar.held() == 1)
    await second.end()
    await sidecar.is_idle()


async def test_what_runs_counts_on_while_its_cluster_and_tier_leave_the_policy_and_come_back(
    start: START, policy: Policy, revise: Callable[..., Policy]
) -> None:
    rejecting = revise(tiers={"premium": {"on_overload": (Rung.REJECT,)}})
    sidecar = await start(rejecting)
    running = await full(sidecar)

    [elsewhere] = [route for route in policy.models["assistant"].routes if route.cluster == "standard"]
    without = replace(
        policy,
        tenants=policy.tenants | {"acme": replace(policy.tenants["acme"], tier="interactive")},
        tiers={name: tier for name, tier in policy.tiers.items() if name != "premium"},
        models={"assistant": replace(policy.models["assistant"], routes=(elsewhere,))},
        clusters={name: cluster for name, cluster in policy.clusters.items() if name != "best"},
    )
    sidecar.policies.append(without)
    await sidecar.open().admitted()
    assert (sidecar.held(), sidecar.held("standard")) == (2, 1)

    sidecar.policies.append(rejecting)
    refused = sidecar.open()
    await refused.ask(headers())
    assert refusal_of(await refused.ask(body())) == (429, "cluster_concurrency")
    for stream in running:
        await stream.end()
    await until(lambda: sidecar.held() == 0)
    await full(sidecar)
    assert sidecar.held() == 2


async def test_a_request_keeps_the_policy_its_stream_began_with(sidecar: Sidecar, policy: Policy) -> None:
    before = sidecar.open()
    await before.ask(headers())

    sidecar.policies.append(replace(policy, models={}))
    after = sidecar.open()
    await after.ask(headers())

    assert kind(await before.ask(body())) == "request_body"
    assert refusal_of(await after.ask(body())) == (404, "unknown_model")
