"""Spans of calls, as a real collector gets them over both of OTLP's transports."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import grpc
import grpc.aio
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from headgate.pb import ratelimit_pb2 as pb
from headgate.transport.grpcio import GrpcioServer
from ratelimit.config import load_configuration
from ratelimit.memory import MemoryStore
from ratelimit.service import RateLimitService
from ratelimit.stats import Stats
from ratelimit.tracing import Tracing
from ratelimit.tracing_settings import TracingProtocol, TracingSettings

FILE = b"""
domain: d
descriptors:
  - {key: k, rate_limit: {unit: minute, requests_per_unit: 2}}
"""
TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
SAMPLED = (("traceparent", f"00-{TRACE}-{PARENT}-01"),)
UNSAMPLED = (("traceparent", f"00-{TRACE}-{PARENT}-00"),)
Ask = Callable[..., Any]


def message(domain: str = "d") -> bytes:
    request = pb.RateLimitRequest(domain=domain)
    request.descriptors.add().entries.add(key="k", value="v")
    return request.SerializeToString()


@asynccontextmanager
async def served(tracing: Tracing) -> AsyncIterator[Ask]:
    configuration = load_configuration([("a.yaml", FILE)])
    store = tracing.traced_store(MemoryStore(lambda: 1_000_000.0))
    service = RateLimitService(configuration=lambda _: configuration, store=store, stats=Stats())
    server = GrpcioServer("127.0.0.1:0", [tracing.traced(service.service())], max_message_bytes=1 << 20)
    address = await server.start()
    async with grpc.aio.insecure_channel(address) as channel:
        yield channel.unary_unary("/envoy.service.ratelimit.v3.RateLimitService/ShouldRateLimit")
    await server.drain(1)
    await tracing.stop()


async def test_a_call_continues_its_callers_trace_and_what_it_asks_the_store_is_a_part_of_it() -> None:
    exporter = InMemorySpanExporter()
    async with served(Tracing(TracingSettings(sampling_rate=0.0), exporter)) as ask:
        answers = [pb.RateLimitResponse.FromString(await ask(message(), metadata=SAMPLED)) for _ in range(3)]
        await ask(message(), metadata=UNSAMPLED)
        await ask(message())

    assert [answer.overall_code for answer in answers] == [1, 1, 2]
    spans = exporter.get_finished_spans()
    assert [span.name for span in spans] == ["Redis Pipeline Execution", "ShouldRateLimit Execution"] * 3
    charge, call = spans[:2]
    assert (f"{call.context.trace_id:032x}", f"{call.parent.span_id:016x}") == (TRACE, PARENT)
    assert charge.parent.span_id == call.context.span_id


async def test_a_call_that_fails_says_so_to_its_caller_and_in_its_span() -> None:
    exporter = InMemorySpanExporter()
    async with served(Tracing(TracingSettings(), exporter)) as ask:
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await ask(message(domain=""))

    assert raised.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    (span,) = exporter.get_finished_spans()
    assert not span.status.is_ok


@contextmanager
def http_collector(received: list[bytes]) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            received.append(self.rfile.read(int(self.headers["content-length"])))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


@contextmanager
def grpc_collector(received: list[bytes]) -> Iterator[str]:
    from concurrent.futures import ThreadPoolExecutor

    def export(request: bytes, _: object) -> bytes:
        received.append(request)
        return b""

    server = grpc.server(ThreadPoolExecutor(1))
    handlers = {"Export": grpc.unary_unary_rpc_method_handler(export)}
    name = "opentelemetry.proto.collector.trace.v1.TraceService"
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(name, handlers),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield f"http://127.0.0.1:{port}"
    server.stop(None).wait()


@pytest.mark.parametrize(
    ("protocol", "collector"), [(TracingProtocol.HTTP, http_collector), (TracingProtocol.GRPC, grpc_collector)]
)
async def test_a_collector_gets_the_spans_with_the_services_name(
    protocol: TracingProtocol, collector: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    received: list[bytes] = []
    with collector(received) as endpoint:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint)
        settings = TracingSettings(protocol=protocol, service_namespace="ns", instance_id="i1")
        async with served(await asyncio.to_thread(Tracing, settings)) as ask:
            await ask(message())

    (resource,) = ExportTraceServiceRequest.FromString(received[0]).resource_spans
    attributes = {item.key: item.value.string_value for item in resource.resource.attributes}
    assert {name: attributes[f"service.{name}"] for name in ("name", "namespace", "instance.id")} == {
        "name": "RateLimit",
        "namespace": "ns",
        "instance.id": "i1",
    }
    assert len(resource.scope_spans[0].spans) == 2
