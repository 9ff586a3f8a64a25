"""A decision as OpenTelemetry spans, sent to an OTLP/HTTP receiver. Imported only where one is named.

The span's parent is the request's own `traceparent`, whose sampled flag also decides whether there is a span at all.
"""

from __future__ import annotations

import asyncio
import time

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import SpanKind, Status, StatusCode, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from extproc.events import Decision, Verdict
from headgate import __version__

_EXPORT_SECONDS = 5.0
_PATH = "/v1/traces"


class DecisionSpans:
    """Makes the spans and sends them, in batches, from a thread of the SDK's.

    Args:
        endpoint: `http://host:port` of the receiver.
    """

    def __init__(self, endpoint: str) -> None:
        resource = Resource.create({"service.name": "headgate", "service.version": __version__})
        self._provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        exporter = OTLPSpanExporter(endpoint=endpoint.rstrip("/") + _PATH, timeout=_EXPORT_SECONDS)
        self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer("headgate", __version__)
        self._propagator = TraceContextTextMapPropagator()

    async def start(self) -> str:
        """Nothing to begin: the SDK's thread has. Spans are sent to somebody else's address, so none is returned."""
        return ""

    async def stop(self) -> None:
        """Send what is left."""
        await asyncio.to_thread(self._provider.shutdown)

    def report(self, decision: Decision, decision_seconds: float) -> None:
        """One span for a decision that was made just now, and inside it one for its wait in the queue."""
        ended_at = time.time_ns()
        waited_from = ended_at - int(decision.queue_wait_seconds * 1e9)
        parent = self._propagator.extract({"traceparent": decision.traceparent})
        span = self._tracer.start_span(
            "headgate.decide", parent, SpanKind.SERVER, start_time=waited_from - int(decision_seconds * 1e9)
        )
        if span.is_recording():
            span.set_attributes(_attributes(decision))
            if decision.verdict is Verdict.REJECT:
                span.set_status(Status(StatusCode.ERROR, decision.reason))
            if decision.queue_wait_seconds:
                inside = set_span_in_context(span, parent)
                self._tracer.start_span("headgate.queue", inside, start_time=waited_from).end(ended_at)
        span.end(ended_at)


def _attributes(decision: Decision) -> dict[str, str | int | float]:
    return {
        "headgate.request_id": decision.request_id,
        "headgate.verdict": decision.verdict.value,
        "headgate.reason": decision.reason,
        "headgate.tenant": decision.tenant,
        "headgate.tier": decision.tier,
        "headgate.cluster": decision.cluster,
        "headgate.queue_wait_seconds": decision.queue_wait_seconds,
        "headgate.prompt_tokens": decision.prompt_tokens,
        "gen_ai.operation.name": decision.operation,
        "gen_ai.request.model": decision.model,
        "gen_ai.request.max_tokens": decision.max_output_tokens,
    }
