"""Decisions as spans, as a real OTLP/HTTP receiver gets them; and nothing of it where nobody asks."""

from __future__ import annotations

import gzip
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from extproc.assembly import assemble
from extproc.events import Decision, Verdict
from extproc.spans import DecisionSpans
from headgate.errors import SettingsError
from headgate.lifecycle import Process
from headgate.settings import Settings

TRACE_ID, PARENT_ID = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


class Receiver:
    """An OTLP/HTTP receiver that keeps what it is sent."""

    def __init__(self) -> None:
        self.requests: list[ExportTraceServiceRequest] = []
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                if self.headers.get("content-encoding") == "gzip":
                    body = gzip.decompress(body)
                assert self.path == "/v1/traces"
                receiver.requests.append(ExportTraceServiceRequest.FromString(body))
                answer = ExportTraceServiceResponse().SerializeToString()
                self.send_response(200)
                self.send_header("content-type", "application/x-protobuf")
                self.send_header("content-length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.endpoint = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    @property
    def spans(self) -> dict[str, Span]:
        return {
            span.name: span
            for request in self.requests
            for resource in request.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        }


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    made = Receiver()
    yield made
    made.close()


def decided(**fields: Any) -> Decision:
    known = {
        "request_id": "r-1",
        "verdict": Verdict.ADMIT,
        "reason": "",
        "status": 200,
        "tenant": "acme",
        "tier": "premium",
        "model": "assistant",
        "cluster": "best",
        "operation": "chat",
        "traceparent": f"00-{TRACE_ID}-{PARENT_ID}-01",
    }
    return Decision(**known | fields)


async def reported(receiver: Receiver, decision: Decision, seconds: float = 0.002) -> dict[str, Span]:
    spans = DecisionSpans(receiver.endpoint)
    spans.report(decision, seconds)
    await spans.stop()
    return receiver.spans


def lasted_seconds(span: Span) -> float:
    return (span.end_time_unix_nano - span.start_time_unix_nano) / 1e9


async def test_a_decision_is_a_span_under_the_trace_the_request_came_with(receiver: Receiver) -> None:
    [span] = (await reported(receiver, decided())).values()

    assert (span.name, span.trace_id.hex(), span.parent_span_id.hex()) == ("headgate.decide", TRACE_ID, PARENT_ID)
    assert lasted_seconds(span) == pytest.approx(0.002)
    said = {item.key: item.value.string_value or item.value.int_value for item in span.attributes}
    expected = {
        "headgate.request_id": "r-1",
        "headgate.verdict": "ADMIT",
        "headgate.tenant": "acme",
        "headgate.tier": "premium",
        "headgate.cluster": "best",
        "gen_ai.operation.name": "chat",
        "gen_ai.request.model": "assistant",
    }
    assert {key: said[key] for key in expected} == expected
    [resource] = [item.resource for request in receiver.requests for item in request.resource_spans]
    assert {item.key: item.value.string_value for item in resource.attributes}["service.name"] == "headgate"


async def test_the_wait_in_the_queue_is_a_span_of_its_own_inside(receiver: Receiver) -> None:
    spans = await reported(receiver, decided(verdict=Verdict.QUEUE, queue_wait_seconds=1.5))

    decide, queue = spans["headgate.decide"], spans["headgate.queue"]
    assert queue.parent_span_id == decide.span_id
    assert lasted_seconds(queue) == pytest.approx(1.5)
    assert lasted_seconds(decide) == pytest.approx(1.502)


async def test_a_refusal_is_an_error_with_its_reason(receiver: Receiver) -> None:
    refused = decided(verdict=Verdict.REJECT, reason="queue_full", status=429)

    span = (await reported(receiver, refused))["headgate.decide"]

    assert (span.status.code, span.status.message) == (Status.STATUS_CODE_ERROR, "queue_full")


@pytest.mark.parametrize("traceparent", ["", "nonsense", f"00-{TRACE_ID}-{'0' * 16}-01"])
async def test_a_request_without_a_trace_begins_one(receiver: Receiver, traceparent: str) -> None:
    span = (await reported(receiver, decided(traceparent=traceparent)))["headgate.decide"]

    assert span.parent_span_id == b""
    assert span.trace_id.hex() != TRACE_ID


async def test_a_trace_that_is_not_sampled_stays_so(receiver: Receiver) -> None:
    unsampled = decided(traceparent=f"00-{TRACE_ID}-{PARENT_ID}-00", queue_wait_seconds=1.0)

    assert await reported(receiver, unsampled) == {}


async def test_a_process_told_of_a_receiver_sends_what_it_decides(receiver: Receiver) -> None:
    process = Process(Settings(otlp_endpoint=receiver.endpoint), "extproc")
    service = assemble(process)

    service._report(decided(), 0.001)
    for part in process.parts:
        assert await part.start() == ""
        await part.stop()

    assert set(receiver.spans) == {"headgate.decide"}


def test_a_process_told_of_none_never_loads_opentelemetry() -> None:
    program = (
        "import sys; from extproc.assembly import assemble; from headgate.lifecycle import Process;"
        "from headgate.settings import Settings; process = Process(Settings(), 'extproc'); assemble(process);"
        "assert not [name for name in sys.modules if name.startswith('opentelemetry')]"
    )

    subprocess.run([sys.executable, "-c", program], check=True)


def test_without_the_extra_an_endpoint_is_a_setting_that_cannot_be_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "extproc.spans")
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)

    with pytest.raises(SettingsError, match=r"headgate\[otel\]"):
        assemble(Process(Settings(otlp_endpoint="http://127.0.0.1:4318"), "extproc"))
