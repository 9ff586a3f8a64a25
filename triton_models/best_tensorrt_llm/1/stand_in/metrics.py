"""The series the TensorRT-LLM backend exports, under the names and labels of its custom_metrics_reporter.

Owns the mapping from an iteration's numbers to Prometheus; knows nothing of requests or tensors.
"""

from __future__ import annotations

import time
from collections.abc import Mapping

import triton_python_backend_utils as pb_utils

from stand_in.batcher import Limits, Snapshot

_TOKEN_BUCKETS = [10, 50, 100, 500, 1000]

_REQUEST = ("nv_trt_llm_request_metrics", "TRT LLM request metrics", "request_type")
_KV_CACHE = ("nv_trt_llm_kv_cache_block_metrics", "TRT LLM KV cache block metrics", "kv_cache_block_type")
_INFLIGHT = (
    "nv_trt_llm_inflight_batcher_metrics",
    "TRT LLM inflight_batcher-specific metrics",
    "inflight_batcher_specific_metric",
)
_GENERAL = ("nv_trt_llm_general_metrics", "General TRT LLM metrics", "general_type")
_INPUT_TOKENS = "nv_llm_input_token_len"
_OUTPUT_TOKENS = "nv_llm_output_token_len"


class EngineMetrics:
    """Gauges and histograms of one engine model. Only values that changed cross over to the server."""

    def __init__(self, *, model: str, version: str, limits: Limits) -> None:
        self._labels = {"model": model, "version": version}
        self._limits = limits
        self._families: dict[str, pb_utils.MetricFamily] = {}
        self._gauges: dict[tuple[str, str], pb_utils.Metric] = {}
        self._published: dict[tuple[str, str], float] = {}
        self._input_tokens = self._histogram(_INPUT_TOKENS, "total_input_tokens")
        self._output_tokens = self._histogram(_OUTPUT_TOKENS, "total_output_tokens")

    def publish(self, snapshot: Snapshot) -> None:
        """Set every gauge to this iteration's numbers."""
        self._set(_REQUEST, self._request_values(snapshot))
        self._set(_KV_CACHE, self._kv_cache_values(snapshot))
        self._set(
            _INFLIGHT,
            {
                "total_context_tokens": snapshot.context_tokens,
                "generation_requests": snapshot.generation,
                "micro_batch_id": 0,
                "paused_requests": 0,
            },
        )
        microseconds = time.time_ns() // 1000
        self._set(_GENERAL, {"timestamp": microseconds, "iteration_counter": snapshot.iteration})

    def count_finished(self, *, input_tokens: int, output_tokens: int) -> None:
        """Record the token counts of one request that ended, for whatever cause."""
        self._input_tokens.observe(input_tokens)
        self._output_tokens.observe(output_tokens)

    def _request_values(self, snapshot: Snapshot) -> dict[str, float]:
        return {
            "active": snapshot.active,
            "max": self._limits.slots,
            "scheduled": snapshot.scheduled,
            "context": snapshot.context,
            "waiting": snapshot.waiting,
        }

    def _kv_cache_values(self, snapshot: Snapshot) -> dict[str, float]:
        blocks = self._limits.kv_cache_blocks
        return {
            "max": blocks,
            "free": blocks - snapshot.used_blocks,
            "used": snapshot.used_blocks,
            "tokens_per": self._limits.tokens_per_block,
            "reused": 0,
            "fraction": snapshot.used_blocks / blocks,
        }

    def _set(self, group: tuple[str, str, str], values: Mapping[str, float]) -> None:
        name, description, label = group
        for value_name, value in values.items():
            key = (name, value_name)
            if key not in self._gauges:
                family = self._family(name, description, pb_utils.MetricFamily.GAUGE)
                self._gauges[key] = family.Metric(labels={**self._labels, label: value_name})
            if self._published.get(key) != value:
                self._gauges[key].set(value)
                self._published[key] = value

    def _histogram(self, name: str, kind: str) -> pb_utils.Metric:
        family = self._family(name, "TRT LLM response metrics", pb_utils.MetricFamily.HISTOGRAM)
        return family.Metric(labels={**self._labels, "response_metric_type": kind}, buckets=_TOKEN_BUCKETS)

    def _family(self, name: str, description: str, kind: int) -> pb_utils.MetricFamily:
        if name not in self._families:
            self._families[name] = pb_utils.MetricFamily(name=name, description=description, kind=kind)
        return self._families[name]
