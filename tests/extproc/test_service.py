"""The service behind each real gRPC server, asked by a real gRPC client: the stream of a request is its lease."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from typing import Any

import grpc
import grpc.aio
import pytest
import pytest_asyncio

from extproc import conversation
from extproc.desk import AdmissionDesk
from extproc.events import Decision, Reply, Verdict
from extproc.queue import FairQueue
from extproc.routing import Signals
from extproc.service import ExtProcService
from extproc.signals import ClusterSignals
from headgate.pb import ext_proc_pb2 as pb
from headgate.policy.model import Capacity, OnStoreFailure, Policy, Queue, Rung, TenantLimits
from headgate.store import LeaseRequest, Scope, TakeOutcome
from headgate.store.memory import MemoryStore
from headgate.transport import Server

# grpcio's poller outlives a test, so its event loop has to.
pytestmark = pytest.mark.asyncio(loop_scope="module")
METHOD = "/envoy.service.ext_proc.v3.ExternalProcessor/Process"
PATIENCE_SECONDS = 5.0
PATH = "/v1/chat/completions"


def headers(tenant: str = "acme", path: str = PATH, **more: str) -> bytes:
    pairs = {":method": "POST", ":path": path, "authorization": f"Bearer {tenant}-key", "x-request-id": "r-1"}
    values = [pb.HeaderValue(key=key, raw_value=value.encode()) for key, value in (pairs | more).items()]
    message = pb.ProcessingRequest(request_headers=pb.HttpHeaders(headers=pb.HeaderMap(headers=values)))
    return message.SerializeToString()


def body(content: bytes | None = None, **fields: Any) -> bytes:
    chat = {"model": "assistant", "messages": [{"role": "user", "content": "Hello"}]} | fields
    content = json.dumps(chat).encode() if content is None else content
    return pb.ProcessingRequest(request_body=pb.HttpBody(body=content, end_of_stream=True)).SerializeToString()


def trailers(of: str = "response") -> bytes:
    message = pb.ProcessingRequest()
    getattr(message, f"{of}_trailers").SetInParent()
    return message.SerializeToString()


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


async def until(condition: Callable[[], bool]) -> None:
    """Wait for what another task is about to bring about."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.001)


class Stream:
    """One HTTP request as Envoy would have it processed."""

    def __init__(self, call: grpc.aio.StreamStreamCall) -> None:
        self.call = call

    async def ask(self, message: bytes) -> pb.ProcessingResponse:
        """Send a message and read its reply."""
        await self.call.write(message)
        return await self.reply()

    async def reply(self) -> pb.ProcessingResponse:
        async with asyncio.timeout(PATIENCE_SECONDS):
            message = await self.call.read()
        assert message is not grpc.aio.EOF, "the stream ended without a reply"
        return pb.ProcessingResponse.FromString(message)

    async def end(self) -> grpc.StatusCode:
        """Half-close as Envoy does when the HTTP request is over; the stream must end without another message."""
        await self.call.done_writing()
        return await self.status()

    async def status(self) -> grpc.StatusCode:
        """How the stream ended, without another message."""
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                assert await self.call.read() is grpc.aio.EOF
                return await self.call.code()
        except grpc.aio.AioRpcError as error:
            return error.code()

    async def admitted(self, tenant: str = "acme", **fields: Any) -> pb.BodyResponse:
        assert kind(await self.ask(headers(tenant))) == "request_headers"
        response = await self.ask(body(**fields))
        assert kind(response) == "request_body", response
        return response.request_body

    async def queued(self, sidecar: Sidecar, tenant: str = "acme") -> None:
        """Send all and wait until it stands in the queue."""
        depth = sidecar.depth
        await self.ask(headers(tenant))
        await self.call.write(body())
        await until(lambda: sidecar.depth == depth + 1)


class Sidecar:
    """A served ExtProcService and a client of it."""

    def __init__(
        self, policy: Policy, store: MemoryStore, signals: Signals | None, new_server: Callable[..., Server]
    ) -> None:
        self.policies = [policy]
        self.store = store
        self.decisions: list[Decision] = []
        self.desk = AdmissionDesk(store)
        self.service = ExtProcService(
            policy=lambda: self.policies[-1],
            desk=self.desk,
            signals=signals or ClusterSignals(lambda: self.policies[-1], store, self.desk.queue),
            report=lambda decision, seconds: self.report(decision, seconds),
            clock=time.perf_counter,
        )
        self.server = new_server("127.0.0.1:0", [self.service.service()], max_message_bytes=1 << 20)
        self.channel: grpc.aio.Channel

    def report(self, decision: Decision, seconds: float) -> None:
        assert 0.0 < seconds < PATIENCE_SECONDS
        self.decisions.append(decision)

    def open(self) -> Stream:
        return Stream(self.channel.stream_stream(METHOD)())

    def held(self, cluster: str = "best") -> int:
        return self.store.in_flight(Scope.CLUSTER, cluster)

    @property
    def depth(self) -> int:
        return sum(self.desk.queue.depths().values())

    async def is_idle(self, running_on: int = 0) -> None:
        """Wait until no stream, no place in the queue and no slot is taken but by those that run on without us."""
        await until(lambda: not (self.service.open_streams or self.depth))
        await until(lambda: self.held() + self.held("standard") == running_on)


START = Callable[..., Any]


@pytest_asyncio.fixture(loop_scope="module")
async def start(policy: Policy, new_server: Callable[..., Server]) -> AsyncIterator[START]:
    running: list[Sidecar] = []

    async def start(
        changed: Policy = policy, *, store: MemoryStore | None = None, signals: Signals | None = None
    ) -> Sidecar:
        sidecar = Sidecar(changed, store or MemoryStore(time.monotonic), signals, new_server)
        address = await sidecar.server.start()
        sidecar.channel = grpc.aio.insecure_channel(address)
        running.append(sidecar)
        return sidecar

    yield start
    for sidecar in running:
        await sidecar.channel.close()
        await sidecar.server.drain(0)


@pytest_asyncio.fixture(loop_scope="module")
async def sidecar(start: START) -> Sidecar:
    return await start()


def kind(response: pb.ProcessingResponse) -> str | None:
    return response.WhichOneof("response")


def refusal_of(response: pb.ProcessingResponse) -> tuple[int, str]:
    """Status and reason of an immediate response."""
    assert kind(response) == "immediate_response", response
    immediate = response.immediate_response
    return immediate.status.code, immediate.details.removeprefix("headgate_")


def failures(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.message for record in caplog.records if record.name == "headgate.extproc"]


# admitted


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


# refused


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


# queued


async def full(sidecar: Sidecar) -> list[Stream]:
    """Both slots of the best cluster taken."""
    streams = [sidecar.open() for _ in range(2)]
    for stream in streams:
        await stream.admitted()
    return streams


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


# the ends of a stream


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


# what must not happen


async def test_a_decision_that_fails_is_a_503_and_never_a_pass(
    start: START, policy: Policy, caplog: pytest.LogCaptureFixture
) -> None:
    class Broken(ClusterSignals):
        def in_flight(self, scope: Scope, name: str) -> int:
            raise ZeroDivisionError("a bug")

    sidecar = await start(signals=Broken(lambda: policy, MemoryStore(time.monotonic), FairQueue()))
    stream = sidecar.open()

    response = await stream.ask(headers("hobby"))

    assert refusal_of(response) == (503, "internal_error")
    assert b"bug" not in response.SerializeToString()
    assert await stream.status() is grpc.StatusCode.OK
    await sidecar.is_idle()
    assert failures(caplog) == ["a decision failed"]


async def test_a_store_that_fails_unforeseen_is_a_503_and_the_next_request_is_served(
    start: START, caplog: pytest.LogCaptureFixture
) -> None:
    class Store(MemoryStore):
        failures = 1

        def acquire(self, request: LeaseRequest, answer: TakeOutcome) -> None:
            if self.failures:
                self.failures -= 1
                raise ConnectionResetError
            super().acquire(request, answer)

    sidecar = await start(store=Store(time.monotonic))
    first, second = sidecar.open(), sidecar.open()
    await first.ask(headers())

    assert refusal_of(await first.ask(body())) == (503, "internal_error")
    await second.admitted()
    assert failures(caplog) == ["a decision failed"]


@pytest.mark.parametrize(
    ("on_failure", "expected"),
    [(OnStoreFailure.CLOSED, "immediate_response"), (OnStoreFailure.OPEN, "request_body")],
)
async def test_a_store_that_is_away_is_answered_as_the_policy_says(
    start: START, policy: Policy, on_failure: OnStoreFailure, expected: str
) -> None:
    class Away(MemoryStore):
        def acquire(self, request: LeaseRequest, answer: TakeOutcome) -> None:
            answer(None)

    sidecar = await start(replace(policy, on_store_failure=on_failure), store=Away(time.monotonic))
    stream = sidecar.open()
    await stream.ask(headers())

    assert kind(await stream.ask(body())) == expected
    assert await stream.end() is grpc.StatusCode.OK
    await sidecar.is_idle()


@pytest.mark.parametrize("message", [b"\xff\xff", b"", b"GET / HTTP/1.1"])
async def test_what_is_no_message_ends_the_stream_and_gives_its_slot_back(sidecar: Sidecar, message: bytes) -> None:
    stream = sidecar.open()
    await stream.admitted()

    await stream.call.write(message)

    assert await stream.status() is grpc.StatusCode.INVALID_ARGUMENT
    await sidecar.is_idle()


async def test_a_message_larger_than_any_body_ends_its_stream_and_leaves_the_server_up(sidecar: Sidecar) -> None:
    large, other = sidecar.open(), sidecar.open()
    await large.ask(headers())
    await large.call.write(body(b" " * (2 << 20)))

    assert await large.status() is grpc.StatusCode.RESOURCE_EXHAUSTED
    await other.admitted()
    await other.end()
    await sidecar.is_idle()


async def test_a_report_that_fails_costs_the_client_nothing(sidecar: Sidecar, caplog: pytest.LogCaptureFixture) -> None:
    def fail(decision: Decision, seconds: float) -> None:
        raise OSError

    sidecar.report = fail  # type: ignore[method-assign]
    stream = sidecar.open()

    await stream.admitted()

    assert await stream.status() is grpc.StatusCode.OK
    await sidecar.is_idle()
    assert failures(caplog) == ["a decision failed"]


async def test_a_decision_and_its_report_that_both_fail_are_still_a_503(
    start: START, policy: Policy, caplog: pytest.LogCaptureFixture
) -> None:
    class Broken(ClusterSignals):
        def in_flight(self, scope: Scope, name: str) -> int:
            raise ZeroDivisionError

    def fail(decision: Decision, seconds: float) -> None:
        raise OSError

    sidecar = await start(signals=Broken(lambda: policy, MemoryStore(time.monotonic), FairQueue()))
    sidecar.report = fail  # type: ignore[method-assign]
    stream = sidecar.open()

    assert refusal_of(await stream.ask(headers("hobby"))) == (503, "internal_error")
    assert await stream.status() is grpc.StatusCode.OK
    assert failures(caplog) == ["a decision failed", "a failed decision could not be answered"]


async def test_a_message_that_cannot_be_answered_at_all_ends_its_stream_in_an_error(
    sidecar: Sidecar, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(reply: Reply) -> bytes:
        raise ValueError

    stream = sidecar.open()
    await stream.ask(headers())
    monkeypatch.setattr(conversation, "build_response", fail)

    await stream.call.write(body())

    # An end without an error would let the request through unchecked.
    assert await stream.status() is grpc.StatusCode.INTERNAL
    await sidecar.is_idle()
    assert failures(caplog) == ["a decision failed", "a failed decision could not be answered"]
