"""A record under OpenTelemetry's names for generative AI: what the model server did, without Headgate's queue."""

from __future__ import annotations

from headgate.metrics import Metrics
from headgate.policy.model import Protocol
from headgate.record import RequestRecord

_OPERATIONS = {"generate": "text_completion", "generate_stream": "text_completion"}
_PROVIDERS = {
    Protocol.OPENAI.value: "openai",
    Protocol.TRITON.value: "nvidia.triton",
    Protocol.KSERVE_GRPC.value: "nvidia.triton",
}


class GenAi:
    """Feeds the `gen_ai_*` metrics."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def report(self, record: RequestRecord) -> None:
        """Count one request that was sent to a cluster."""
        if record.upstream_sent_seconds is None:
            return
        metrics = self._metrics
        operation = _OPERATIONS.get(record.operation, record.operation)
        labels = (operation, _PROVIDERS.get(record.protocol, record.protocol), record.model)
        error = str(record.status) if record.status >= 400 else ""
        seconds = max(0.0, record.duration_seconds - record.upstream_sent_seconds)
        metrics.gen_ai_request_duration.labels(*labels, error).observe(seconds)
        if record.prompt_tokens is not None:
            metrics.gen_ai_token_usage.labels(*labels, "input").observe(record.prompt_tokens)
        if record.output_tokens is not None:
            metrics.gen_ai_token_usage.labels(*labels, "output").observe(record.output_tokens)
        if error or not record.is_stream:
            return
        if record.upstream_first_byte_seconds is not None:
            metrics.gen_ai_time_to_first_token.labels(*labels).observe(record.upstream_first_byte_seconds)
        if record.output_token_seconds is not None:
            metrics.gen_ai_time_per_output_token.labels(*labels).observe(record.output_token_seconds)
