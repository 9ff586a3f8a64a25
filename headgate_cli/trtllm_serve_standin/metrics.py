"""The Prometheus series of trtllm-serve, in a registry of their own; knows no HTTP.

Names, labels and buckets are the real ones. Two differences: the label `engine_type` says that this is a stand-in,
and the gauges are read at scrape time, where the real ones only move when a request completes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from headgate_cli.trtllm_serve_standin.iteration import IterationStats
from headgate_cli.trtllm_serve_standin.sequence import Sequence

_TTFT = (0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 20, 40, 80, 160, 640)
_TPOT = (0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 20, 40, 80)
_LONG = (0.3, 0.5, 0.8, 1, 1.5, 2, 2.5, 5, 10, 15, 20, 30, 40, 50, 60, 120, 240, 480, 960, 1920, 7680)
_HISTOGRAMS = {
    "e2e_request_latency_seconds": ("From arrival to the last token.", _LONG),
    "time_to_first_token_seconds": ("From arrival to the first token.", (*_TTFT, 2560)),
    "time_per_output_token_seconds": ("Time per output token after the first.", _TPOT),
    "request_queue_time_seconds": ("From arrival to a slot.", _LONG),
}
_COUNTERS = {
    "prompt_tokens": "Prompt tokens of finished requests.",
    "generation_tokens": "Output tokens of finished requests.",
    "prompt_cached_tokens": "Prompt tokens of finished requests that came from the prefix cache.",
    "num_requests_completed": "Requests that ran to their end.",
}


class Metrics:
    """All series of one server; `stats` is asked for the engine's state at every scrape."""

    def __init__(self, model: str, stats: Callable[[], IterationStats]) -> None:
        self._registry = CollectorRegistry()
        self._labels = {"model_name": model, "engine_type": "stand-in"}
        self._registry.register(_EngineState(self._labels, stats))
        self._histograms = {name: self._histogram(name, *what) for name, what in _HISTOGRAMS.items()}
        self._counters = {name: self._counter(name, text).labels(**self._labels) for name, text in _COUNTERS.items()}
        self._successes = self._counter("request_success", "Finished requests.", "finished_reason")
        self._errors = self._counter("request_error", "Refused requests.", "http_code")

    def observe_finished(self, sequence: Sequence) -> None:
        """Count a sequence that ran to its end."""
        self._successes.labels(**self._labels, finished_reason=sequence.answer.finish_reason).inc()
        self._counters["num_requests_completed"].inc()
        self._counters["prompt_tokens"].inc(sequence.prompt.tokens)
        self._counters["prompt_cached_tokens"].inc(sequence.cached_tokens)
        self._counters["generation_tokens"].inc(sequence.answer.tokens)
        if sequence.admitted_at is not None and sequence.first_token_at is not None:
            self._observe("request_queue_time_seconds", sequence.admitted_at - sequence.arrived_at)
            self._observe("time_to_first_token_seconds", sequence.first_token_at - sequence.arrived_at)
        if sequence.finished_at is not None:
            self._observe("e2e_request_latency_seconds", sequence.finished_at - sequence.arrived_at)
        if sequence.seconds_per_token is not None:
            self._observe("time_per_output_token_seconds", sequence.seconds_per_token)

    def observe_refused(self, status: int) -> None:
        """Count a request answered with an HTTP error."""
        self._errors.labels(**self._labels, http_code=str(status)).inc()

    def render(self) -> bytes:
        """Return the exposition text (version 0.0.4)."""
        return generate_latest(self._registry)

    def _observe(self, name: str, seconds: float) -> None:
        self._histograms[name].observe(seconds)

    def _counter(self, name: str, text: str, *more: str) -> Counter:
        return Counter(f"trtllm_{name}", text, (*self._labels, *more), registry=self._registry)

    def _histogram(self, name: str, text: str, buckets: tuple[float, ...]) -> Histogram:
        made = Histogram(f"trtllm_{name}", text, tuple(self._labels), buckets=buckets, registry=self._registry)
        return made.labels(**self._labels)


class _EngineState(Collector):
    """The series that are read from the engine, not counted here."""

    def __init__(self, labels: dict[str, str], stats: Callable[[], IterationStats]) -> None:
        self._labels = labels
        self._stats = stats

    def collect(self) -> Iterator[Metric]:
        """Yield the engine's state now."""
        now = self._stats()
        cache = now.kv_cache_stats
        yield self._gauge("num_requests_running", "Requests that hold a slot.", now.num_active_requests)
        yield self._gauge("num_requests_waiting", "Requests in the queue.", now.num_queued_requests)
        yield self._gauge("num_paused_requests", "Always 0: nothing is paused here.", 0)
        yield self._gauge("max_num_active_requests", "Slots.", now.max_num_active_requests)
        yield self._gauge("kv_cache_max_blocks", "Blocks of the key/value cache.", cache.max_num_blocks)
        yield self._gauge("kv_cache_free_blocks", "Blocks no running request fills.", cache.free_num_blocks)
        yield self._gauge("kv_cache_used_blocks", "Blocks running requests fill.", cache.used_num_blocks)
        yield self._gauge("kv_cache_tokens_per_block", "Tokens in a block.", cache.tokens_per_block)
        utilization = cache.used_num_blocks / cache.max_num_blocks
        yield self._gauge("kv_cache_utilization", "Used blocks over all, 0 to 1.", utilization)
        yield self._gauge("kv_cache_hit_rate", "Blocks found over blocks looked up, 0 to 1.", cache.cache_hit_rate)
        yield self._counter("kv_cache_reused_blocks", "Prompt blocks found in the cache.", cache.reused_blocks)
        yield self._counter("kv_cache_missed_blocks", "Prompt blocks not found in it.", cache.missed_blocks)

    def _gauge(self, name: str, text: str, value: float) -> Metric:
        family = GaugeMetricFamily(f"trtllm_{name}", text, labels=list(self._labels))
        family.add_metric(list(self._labels.values()), value)
        return family

    def _counter(self, name: str, text: str, value: float) -> Metric:
        family = CounterMetricFamily(f"trtllm_{name}", text, labels=list(self._labels))
        family.add_metric(list(self._labels.values()), value)
        return family
