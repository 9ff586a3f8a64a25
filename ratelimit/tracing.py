"""Spans of calls and of what they ask Redis, sent over OTLP; only loaded when tracing is enabled.

A call's span continues the trace its caller names in `traceparent`. Spans are sent from a thread of the SDK's own.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Sequence

from opentelemetry.propagate import extract
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
from opentelemetry.trace import SpanKind, StatusCode, Tracer

from headgate.transport import Call, OpenConversation, RpcError, Service, UnaryHandler
from ratelimit.charges import Charge, Charging, Store, Tally
from ratelimit.tracing_settings import TracingProtocol, TracingSettings

_CALL_SPAN = "ShouldRateLimit Execution"
_REDIS_SPAN = "Redis Pipeline Execution"


class Tracing:
    """A part of the process: what is left of the spans is sent when it stops.

    Args:
        exporter: None for the one that the settings and OTEL_EXPORTER_OTLP_* name.
    """

    def __init__(self, settings: TracingSettings, exporter: SpanExporter | None = None) -> None:
        resource = {
            "service.name": settings.service_name,
            "service.namespace": settings.service_namespace,
            "service.instance.id": settings.instance_id or str(uuid.uuid4()),
        }
        self._provider = TracerProvider(
            resource=Resource.create({name: value for name, value in resource.items() if value}),
            sampler=ParentBased(TraceIdRatioBased(settings.sampling_rate)),
            shutdown_on_exit=False,
        )
        self._provider.add_span_processor(BatchSpanProcessor(exporter or _exporter(settings.protocol)))
        self.tracer: Tracer = self._provider.get_tracer("headgate.ratelimit")

    async def start(self) -> str:
        """Nothing to begin; there is no address to return."""
        return ""

    async def stop(self) -> None:
        """Send what is left."""
        await asyncio.to_thread(self._provider.shutdown)

    def traced(self, service: Service) -> Service:
        """The same service with a span around each call."""
        conversations = {name: self._opener(handler) for name, handler in service.unary.items()}
        return Service(name=service.name, conversations=conversations)

    def traced_store(self, store: Store) -> Store:
        """The same store with a span around each charge."""
        return _TracedStore(store, self.tracer)

    def _opener(self, handler: UnaryHandler) -> OpenConversation:
        return lambda call: _TracedCall(call, handler, self.tracer)


class _TracedStore:
    def __init__(self, store: Store, tracer: Tracer) -> None:
        self._store = store
        self._tracer = tracer

    async def charge(self, charges: Sequence[Charge], charging: Charging = Charging.EACH) -> tuple[Tally, ...]:
        """See `Store`."""
        with self._tracer.start_as_current_span(_REDIS_SPAN, kind=SpanKind.CLIENT) as span:
            span.set_attribute("headgate.charges", len(charges))
            return await self._store.charge(charges, charging)

    async def close(self) -> None:
        """Close the store behind."""
        await self._store.close()


class _TracedCall:
    """One call as a conversation, because a unary handler is not told the call's metadata."""

    def __init__(self, call: Call, handler: UnaryHandler, tracer: Tracer) -> None:
        self._call = call
        self._handler = handler
        self._tracer = tracer
        self._task: asyncio.Task[None] | None = None

    def receive(self, message: bytes) -> None:
        """Answer the message."""
        if self._task is None:
            self._task = asyncio.create_task(self._answer(message))
            self._call.on_cancelled(self._task.cancel)

    def ended(self) -> None:
        """The answer comes from the task."""

    async def _answer(self, message: bytes) -> None:
        parent = extract({name: value for name, value in self._call.metadata if isinstance(value, str)})
        with self._tracer.start_as_current_span(_CALL_SPAN, context=parent, kind=SpanKind.SERVER) as span:
            try:
                self._call.send(await self._handler(message))
            except RpcError as error:
                span.set_status(StatusCode.ERROR, str(error))
                self._call.finish(error.code, error.message)
            else:
                self._call.finish()


def _exporter(protocol: TracingProtocol) -> SpanExporter:
    if protocol is TracingProtocol.GRPC:
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter as GrpcExporter

        return GrpcExporter()
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter as HttpExporter

    return HttpExporter()
