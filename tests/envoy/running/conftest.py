"""A real Envoy on the rendered configuration, between scripted Headgate services and models that say what they got."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import socket
import threading
import urllib.request
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TypeVar

import pytest

from headgate.pb import accesslog_pb2, ext_proc_pb2, ratelimit_pb2
from headgate.policy.load import load_policy
from headgate.transport import Send, Service
from headgate.transport.lean import LeanServer
from headgate_cli.render import envoy
from headgate_cli.render.settings import EnvoySettings
from headgate_cli.render.yaml_text import dump

Result = TypeVar("Result")
StartEnvoy = Callable[[Path, Path, int], contextlib.AbstractContextManager[None]]
Answer = ext_proc_pb2.ProcessingResponse

MAX_BODY_BYTES = 256 * 1024
ROUTED_IDLE_SECONDS = 1.0

POLICY = """
apiVersion: headgate/v1
identity:
  - jwt: {{payload_header: x-jwt-payload, tenant_claim: org}}
  - api_key: {{header: authorization}}
  - anonymous: {{tenant: public}}
tenants: {{public: {{tier: premium}}}}
tiers:
  premium: {{priority: 0, queue: {{max_wait: 5s, max_depth: 8}}, on_overload: [queue, reject], max_body: 256KiB}}
models: {{assistant: {{routes: [{{cluster: standard}}]}}}}
clusters:
  standard: {{protocol: openai, model: m, endpoints: ["127.0.0.1:{standard}"]}}
  best: {{protocol: triton, model: m, endpoints: ["127.0.0.1:{best}"]}}
  shared: {{protocol: openai, model: m, endpoints: ["127.0.0.1:{standard}", "127.0.0.1:{best}"], affinity: session}}
  absent: {{protocol: openai, model: m, endpoints: ["127.0.0.1:{absent}"]}}
  half: {{protocol: openai, model: m, endpoints: ["127.0.0.1:{absent}", "127.0.0.1:{standard}"]}}
"""


@dataclass(frozen=True)
class Request:
    """What a model received."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes


@dataclass
class Model:
    """A model server that remembers what it got and says what it is told.

    Attributes:
        release: when set, waited for after the first chunk.
        is_silent: takes the request and answers nothing.
        breaks_off: closes after the chunks, of which more were promised; without chunks, before any answer.
        pause_seconds: between headers and body.
    """

    requests: list[Request] = field(default_factory=list)
    status: int = 200
    content_type: str = "application/json"
    headers: tuple[str, ...] = ()
    chunks: tuple[bytes, ...] = (b"{}",)
    release: asyncio.Event | None = None
    is_silent: bool = False
    breaks_off: bool = False
    pause_seconds: float = 0.0
    port: int = 0

    def reset(self) -> None:
        vars(self).update(vars(Model(port=self.port)))

    async def start(self) -> asyncio.Server:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        return server

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                request = await _read_request(reader)
                self.requests.append(request)
                if not self.is_silent:
                    await self._answer(writer)
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # Envoy has left, or the tests are over
        finally:
            writer.close()

    async def _answer(self, writer: asyncio.StreamWriter) -> None:
        if self.breaks_off and not self.chunks:
            raise ConnectionAbortedError
        length = sum(len(chunk) for chunk in self.chunks) + self.breaks_off
        lines = (f"HTTP/1.1 {self.status} -", f"content-type: {self.content_type}", *self.headers)
        writer.write("\r\n".join((*lines, f"content-length: {length}", "", "")).encode())
        await asyncio.sleep(self.pause_seconds)
        for chunk in self.chunks:
            writer.write(chunk)
            await writer.drain()
            if self.release:
                await self.release.wait()
        if self.breaks_off:
            raise ConnectionAbortedError


async def _read_request(reader: asyncio.StreamReader) -> Request:
    head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
    method, path, _ = head[0].split(" ")
    headers = {name: value.strip() for name, _, value in (line.partition(":") for line in head[1:-2])}
    return Request(method, path, headers, await reader.readexactly(int(headers.get("content-length", "0"))))


@dataclass
class FakeExtProc:
    """An ext_proc service that follows a script and remembers what Envoy sent."""

    on_headers: Callable[[Mapping[str, str]], Answer]
    on_body: Callable[[bytes], Answer]
    delay_seconds: float = 0.0
    headers: list[Mapping[str, str]] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)
    open_streams: int = 0

    async def process(self, messages: AsyncIterator[bytes], send: Send) -> None:
        self.open_streams += 1
        try:
            async for message in messages:
                answer = self._answer(ext_proc_pb2.ProcessingRequest.FromString(message))
                await asyncio.sleep(self.delay_seconds)
                await send(answer.SerializeToString())
        finally:
            self.open_streams -= 1

    def _answer(self, request: ext_proc_pb2.ProcessingRequest) -> Answer:
        if request.HasField("request_headers"):
            headers = {h.key: h.raw_value.decode() for h in request.request_headers.headers.headers}
            self.headers.append(headers)
            return self.on_headers(headers)
        assert request.HasField("request_body"), "the rendered mode asks for headers and body only"
        self.bodies.append(request.request_body.body)
        return self.on_body(request.request_body.body)


@dataclass
class FakeRateLimit:
    """A rate limit service that remembers what it was asked."""

    answer: Callable[[ratelimit_pb2.RateLimitRequest], ratelimit_pb2.RateLimitResponse]
    requests: list[ratelimit_pb2.RateLimitRequest] = field(default_factory=list)

    async def should_rate_limit(self, message: bytes) -> bytes:
        self.requests.append(ratelimit_pb2.RateLimitRequest.FromString(message))
        return self.answer(self.requests[-1]).SerializeToString()


@dataclass
class FakeAccessLog:
    """An access log service that keeps every record."""

    entries: list[accesslog_pb2.HTTPAccessLogEntry] = field(default_factory=list)

    async def stream_access_logs(self, messages: AsyncIterator[bytes], send: Send) -> None:
        async for message in messages:
            self.entries += accesslog_pb2.StreamAccessLogsMessage.FromString(message).http_logs.log_entry


class Loop:
    """An event loop in a thread of its own, so that tests read from top to bottom."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()

    def run(self, coroutine: Coroutine[Any, Any, Result]) -> Result:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(timeout=20)

    def close(self) -> None:
        self.run(_cancel_all_others())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


async def _cancel_all_others() -> None:
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


@dataclass(frozen=True)
class Response:
    """What the client got."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        assert self.headers["content-type"] == "application/json", self
        return json.loads(self.body)


@dataclass
class Stack:
    """One running Envoy and everything around it."""

    port: int
    admin: int
    extproc: FakeExtProc
    ratelimit: FakeRateLimit
    accesslog: FakeAccessLog
    models: Mapping[str, Model]
    loop: Loop
    wait_until: Callable[..., None]
    request_id: str = ""

    def post(self, path: str = "/v1/x", body: bytes = b"{}", **headers: str) -> Response:
        """Send one request, its headers with - for _, and read the whole response."""
        with self.open("POST", path, body, **headers) as response:
            names: dict[str, str] = {}
            for name, value in response.getheaders():
                names[name.lower()] = f"{names[name.lower()]}, {value}" if name.lower() in names else value
            return Response(response.status, names, response.read())

    @contextlib.contextmanager
    def open(self, method: str, path: str, body: bytes = b"", **headers: str) -> Iterator[http.client.HTTPResponse]:
        """Send one request on a connection of its own; the body of the response is left to read."""
        names = {name.replace("_", "-"): value for name, value in headers.items()}
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)) as connection:
            connection.request(method, path, body, names)
            response = connection.getresponse()
            self.request_id = response.headers["x-request-id"]
            yield response

    def record(self) -> accesslog_pb2.HTTPAccessLogEntry:
        """The access log record of the last request."""

        def found() -> list[accesslog_pb2.HTTPAccessLogEntry]:
            return [entry for entry in self.accesslog.entries if entry.request.request_id == self.request_id]

        self.wait_until(found, "access log record")
        return found()[0]

    def metadata(self, namespace: str) -> dict[str, object]:
        """What the access log record carries in one namespace."""
        known = self.record().common_properties.metadata.filter_metadata
        return dict(known[namespace]) if namespace in known else {}

    def statistic(self, name: str) -> int:
        page = urllib.request.urlopen(f"http://127.0.0.1:{self.admin}/stats?filter=^{name}$")
        with page:
            return int(page.read().decode().split(":")[1])


def _carry_on(_headers: Mapping[str, str]) -> Answer:
    return Answer(request_headers=ext_proc_pb2.HeadersResponse())


def _routed(cluster: str, *, body: bytes | None = None, charged_tokens: int = 7, **headers: str) -> Answer:
    """What Headgate answers to the body of a request it lets run."""
    stamped = {"x-model-cluster": cluster, "x-headgate-tenant": "acme", "x-headgate-tier": "premium", **headers}
    common = ext_proc_pb2.CommonResponse(clear_route_cache=True)
    if body is not None:
        stamped["content-length"] = str(len(body))
        common.body_mutation.body = body
    common.header_mutation.set_headers.extend(_header(name, value) for name, value in stamped.items())
    answer = Answer(request_body=ext_proc_pb2.BodyResponse(response=common))
    metadata = {
        "decision": "admit",
        "model": "assistant",
        "protocol": "openai",
        "charged_tokens": charged_tokens,
        "server_timing": "hg-queue;dur=0.0, hg-decide;dur=0.12",
    }
    answer.dynamic_metadata.update({"headgate": metadata})
    return answer


def _routed_at_once(cluster: str) -> Answer:
    """What Headgate answers to the headers of a request that has no body."""
    answer = _routed(cluster)
    headers = ext_proc_pb2.HeadersResponse(response=answer.request_body.response)
    return Answer(request_headers=headers, dynamic_metadata=answer.dynamic_metadata)


def _refused(status: int, body: bytes, **headers: str) -> Answer:
    """What Headgate answers when a request does not run."""
    immediate = ext_proc_pb2.ImmediateResponse(body=body, details="headgate_test")
    immediate.status.code = status
    immediate.headers.set_headers.extend(_header(name.replace("_", "-"), value) for name, value in headers.items())
    answer = Answer(immediate_response=immediate)
    answer.dynamic_metadata.update(
        {
            "headgate": {
                "verdict": "REJECT",
                "decision": "reject; reason=test",
                "server_timing": "hg-queue;dur=9.0, hg-decide;dur=0.20",
            }
        }
    )
    return answer


def _header(name: str, value: str) -> ext_proc_pb2.HeaderValueOption:
    return ext_proc_pb2.HeaderValueOption(
        header=ext_proc_pb2.HeaderValue(key=name, raw_value=value.encode()),
        append_action=ext_proc_pb2.HeaderValueOption.OVERWRITE_IF_EXISTS_OR_ADD,
    )


def _within_limit(request: ratelimit_pb2.RateLimitRequest) -> ratelimit_pb2.RateLimitResponse:
    ok = ratelimit_pb2.RateLimitResponse.DescriptorStatus(code=ratelimit_pb2.RateLimitResponse.OK)
    return ratelimit_pb2.RateLimitResponse(
        overall_code=ratelimit_pb2.RateLimitResponse.OK, statuses=[ok] * len(request.descriptors)
    )


async def _serve(address: str, *services: Service) -> tuple[LeanServer, str]:
    server = LeanServer(address, services, max_message_bytes=MAX_BODY_BYTES * 2)
    return server, await server.start()


@pytest.fixture(scope="module")
def running(
    binary: Path,
    tmp_path_factory: pytest.TempPathFactory,
    start_envoy: StartEnvoy,
    free_port: Callable[[], int],
    wait_until: Callable[..., None],
) -> Iterator[Stack]:
    """One Envoy for all tests of a module; ext_proc is reached through a unix socket, ratelimit over TCP."""
    folder = tmp_path_factory.mktemp("envoy")
    loop, models = Loop(), {name: Model() for name in ("standard", "best")}
    extproc, ratelimit, accesslog = FakeExtProc(_carry_on, _routed), FakeRateLimit(_within_limit), FakeAccessLog()
    listening = [loop.run(model.start()) for model in models.values()]
    name = "envoy.service.ext_proc.v3.ExternalProcessor"
    sidecar, extproc_address = loop.run(
        _serve(f"unix:{folder}/extproc.sock", Service(name=name, streams={"Process": extproc.process}))
    )
    rls = Service(
        name="envoy.service.ratelimit.v3.RateLimitService", unary={"ShouldRateLimit": ratelimit.should_rate_limit}
    )
    als = Service(
        name="envoy.service.accesslog.v3.AccessLogService", streams={"StreamAccessLogs": accesslog.stream_access_logs}
    )
    others, address = loop.run(_serve("127.0.0.1:0", rls, als))
    port, admin, absent = free_port(), free_port(), free_port()
    settings = EnvoySettings(
        listen=f"127.0.0.1:{port}",
        admin=f"127.0.0.1:{admin}",
        extproc=extproc_address,
        ratelimit=address,
        accesslog=address,
        idle_seconds=ROUTED_IDLE_SECONDS,
        accesslog_flush_seconds=0.01,
    )
    ports = {name: model.port for name, model in models.items()}
    policy = load_policy(POLICY.format(**ports, absent=absent).encode(), "policy.yaml")
    configuration = folder / "envoy.yaml"
    configuration.write_text(dump(envoy.bootstrap(policy, settings)))
    with start_envoy(binary, configuration, admin):
        yield Stack(port, admin, extproc, ratelimit, accesslog, models, loop, wait_until)
    for stopped in (sidecar.drain(0.0), others.drain(0.0), *(_close(server) for server in listening)):
        loop.run(stopped)
    loop.close()


async def _close(server: asyncio.Server) -> None:
    server.close()


@pytest.fixture
def stack(running: Stack) -> Stack:
    """The running Envoy, with nothing received yet and every request let through to `standard`."""
    running.wait_until(lambda: running.extproc.open_streams == 0, "end of the streams of the test before")
    for seen in (running.extproc.headers, running.extproc.bodies, running.ratelimit.requests):
        seen.clear()
    running.extproc.on_headers, running.extproc.on_body = _carry_on, lambda _: _routed("standard")
    running.extproc.delay_seconds, running.ratelimit.answer = 0.0, _within_limit
    for model in running.models.values():
        model.reset()
    return running


def _raw(stack: Stack, request: bytes) -> bytes:
    """What Envoy answers to these bytes until it closes the connection."""
    with socket.create_connection(("127.0.0.1", stack.port), timeout=20) as connection:
        connection.sendall(request)
        return b"".join(iter(lambda: connection.recv(65536), b""))


@pytest.fixture(scope="session")
def say() -> SimpleNamespace:
    """What a Headgate service may answer, and what the tests share."""
    return SimpleNamespace(
        routed=_routed,
        routed_at_once=_routed_at_once,
        refused=_refused,
        untouched=lambda: Answer(request_body=ext_proc_pb2.BodyResponse()),
        raw=_raw,
        max_body_bytes=MAX_BODY_BYTES,
        routed_idle_seconds=ROUTED_IDLE_SECONDS,
    )
