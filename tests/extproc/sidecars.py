"""The service behind a real gRPC server, and the streams by which a test asks it as Envoy would."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from typing import Any

import grpc
import grpc.aio
import pytest

from extproc.desk import AdmissionDesk
from extproc.events import Decision
from extproc.routing import Signals
from extproc.service import ExtProcService
from extproc.signals import ClusterSignals
from headgate.pb import ext_proc_pb2 as pb
from headgate.policy.model import Policy
from headgate.store import Scope
from headgate.store.memory import MemoryStore
from headgate.transport import Server

# grpcio's poller outlives a test, so its event loop has to.
MODULE_LOOP = pytest.mark.asyncio(loop_scope="module")
START = Callable[..., Any]
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


async def full(sidecar: Sidecar) -> list[Stream]:
    """Both slots of the best cluster taken."""
    streams = [sidecar.open() for _ in range(2)]
    for stream in streams:
        await stream.admitted()
    return streams


def kind(response: pb.ProcessingResponse) -> str | None:
    return response.WhichOneof("response")


def refusal_of(response: pb.ProcessingResponse) -> tuple[int, str]:
    """Status and reason of an immediate response."""
    assert kind(response) == "immediate_response", response
    immediate = response.immediate_response
    return immediate.status.code, immediate.details.removeprefix("headgate_")
