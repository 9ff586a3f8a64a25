"""Every metric of the process by its name and labels; docs/metrics.md says which question each one answers.

Labels with values from outside are capped: past the cap a value counts as `other`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from prometheus_client import Gauge
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from headgate import __version__
from headgate.series import CounterFamily, HistogramFamily, Registry, capped_labels

_DECISION_BUCKETS = (0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.05, 0.25)
_LAG_BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0)
_STORE_BUCKETS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0)
_WAIT_BUCKETS = (0.001, 0.005, 0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0)
_RATIO_BUCKETS = (0.25, 0.5, 0.7, 0.8, 0.9, 0.95, 1.0, 1.05, 1.1, 1.25, 1.5, 2.0, 4.0)
# OpenTelemetry's buckets for generative AI. Headgate's own histograms go further, because they hold queues.
_FIRST_TOKEN_BUCKETS = (0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)
_DURATION_BUCKETS = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92)
_OUTPUT_TOKEN_BUCKETS = (0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5)
_USAGE_BUCKETS = tuple(4.0**power for power in range(14))
_LONG_FIRST_TOKEN_BUCKETS = (*_FIRST_TOKEN_BUCKETS, 30.0, 60.0, 120.0, 600.0)
_LONG_DURATION_BUCKETS = (*_DURATION_BUCKETS, 163.84, 327.68, 655.36)
_GEN_AI_LABELS = ("gen_ai_operation_name", "gen_ai_provider_name", "gen_ai_request_model")

Sample = tuple[tuple[str, ...], float]


class Metrics:
    """The process's metrics; services hold the one they feed. On the event loop only."""

    def __init__(self) -> None:
        self.registry = Registry()
        self._cap = capped_labels()
        self.tenant_label, self.limit_label = self._cap("tenant"), self._cap("limit")
        self._declare_decisions()
        self._declare_requests()
        self._declare_latencies()
        self._declare_gen_ai()
        self._declare_process()

    def set_policy_version(self, version: str) -> None:
        """Show one version only: the one in force."""
        self.policy_version.clear()
        self.policy_version.labels(version).set(1)

    def watch(self, name: str, documentation: str, labels: Iterable[str], read: Callable[[], Iterable[Sample]]) -> None:
        """Show a gauge whose values are read when somebody looks."""
        self.registry.register(_LiveGauge(f"headgate_{name}", documentation, tuple(labels), read))

    def exposition(self) -> bytes:
        """All metrics in Prometheus's text format."""
        return self.registry.exposition()

    def counter(self, name: str, documentation: str, *labels: str) -> CounterFamily:
        """A counter called `headgate_<name>_total`; a label has one cap, whatever metric it is on."""
        family = CounterFamily(f"headgate_{name}", documentation, labels, map(self._cap, labels))
        self.registry.register(family)
        return family

    def histogram(self, name: str, documentation: str, buckets: tuple[float, ...], *labels: str) -> HistogramFamily:
        """A histogram, by its whole name."""
        family = HistogramFamily(name, documentation, labels, map(self._cap, labels), buckets)
        self.registry.register(family)
        return family

    def _gauge(self, name: str, documentation: str, *labels: str) -> Gauge:
        return Gauge(f"headgate_{name}", documentation, labels, registry=self.registry)

    def _declare_decisions(self) -> None:
        self.store_errors = self.counter("store_errors", "Calls of the shared store without an answer.", "kind")
        self.store_call_seconds = self.histogram(
            "headgate_store_call_seconds", "Calls of the shared store, with an answer or without.", _STORE_BUCKETS
        )
        self.decisions = self.counter(
            "decisions", "Requests decided on.", "tier", "model", "cluster", "verdict", "reason"
        )
        self.queue_wait_seconds = self.histogram(
            "headgate_queue_wait_seconds", "Time requests waited for a slot.", _WAIT_BUCKETS, "tier", "cluster"
        )
        self.rate_limit_decisions = self.counter(
            "rate_limit_decisions", "Rate limit descriptors judged.", "domain", "limit", "code"
        )

    def _declare_requests(self) -> None:
        self.requests = self.counter(
            "requests", "Requests that ended, as Envoy logged them.", "tier", "model", "cluster", "code", "outcome"
        )
        self.tenant_requests = self.counter("tenant_requests", "Requests that ended.", "tenant", "outcome")
        self.tokens = self.counter(
            "tokens", "Tokens used, as reported or estimated; cached ones are part of prompt.",
            "tenant", "model", "kind", "source",
        )  # fmt: skip
        self.cost_dollars = self.counter(
            "cost_dollars", "What the tokens cost by the policy's prices.", "tenant", "model"
        )
        self.slo_requests = self.counter("slo_requests", "Requests held against their tier's objective.", "tier")
        self.goodput_requests = self.counter("goodput_requests", "Of these, those that met it.", "tier")
        self.retries = self.counter("retries", "Attempts Envoy made beyond the first.", "cluster")
        self.token_estimate_error_ratio = self.histogram(
            "headgate_token_estimate_error_ratio", "Estimated prompt tokens over reported ones; 1 is exact.",
            _RATIO_BUCKETS, "model",
        )  # fmt: skip

    def _declare_latencies(self) -> None:
        self.request_duration_seconds = self.histogram(
            "headgate_request_duration_seconds", "From the request's first byte to the response's last.",
            _LONG_DURATION_BUCKETS, "tier", "model",
        )  # fmt: skip
        self.time_to_first_token_seconds = self.histogram(
            "headgate_time_to_first_token_seconds",
            "From the request's first byte to the first byte of the response's body.",
            _LONG_FIRST_TOKEN_BUCKETS, "tier", "model",
        )  # fmt: skip
        self.upstream_time_to_first_token_seconds = self.histogram(
            "headgate_upstream_time_to_first_token_seconds",
            "From the request's last byte to the model server, to the first byte of its response's body.",
            _FIRST_TOKEN_BUCKETS, "model", "cluster",
        )  # fmt: skip
        self.time_per_output_token_seconds = self.histogram(
            "headgate_time_per_output_token_seconds", "Between two tokens of a response, on average.",
            _OUTPUT_TOKEN_BUCKETS, "model", "cluster",
        )  # fmt: skip

    def _declare_gen_ai(self) -> None:
        self.gen_ai_token_usage = self.histogram(
            "gen_ai_client_token_usage", "Tokens of a request, by type.", _USAGE_BUCKETS,
            *_GEN_AI_LABELS, "gen_ai_token_type",
        )  # fmt: skip
        self.gen_ai_request_duration = self.histogram(
            "gen_ai_server_request_duration_seconds", "Duration of a request.", _DURATION_BUCKETS,
            *_GEN_AI_LABELS, "error_type",
        )  # fmt: skip
        self.gen_ai_time_to_first_token = self.histogram(
            "gen_ai_server_time_to_first_token_seconds", "Time to the first token of a successful response.",
            _FIRST_TOKEN_BUCKETS, *_GEN_AI_LABELS,
        )  # fmt: skip
        self.gen_ai_time_per_output_token = self.histogram(
            "gen_ai_server_time_per_output_token_seconds", "Time per output token after the first.",
            _OUTPUT_TOKEN_BUCKETS, *_GEN_AI_LABELS,
        )  # fmt: skip

    def _declare_process(self) -> None:
        self.decision_seconds = self.histogram(
            "headgate_decision_seconds", "Time spent deciding, without any wait in a queue.", _DECISION_BUCKETS
        ).labels()
        self.loop_lag_seconds = self.histogram(
            "headgate_loop_lag_seconds", "How late the event loop runs what is due.", _LAG_BUCKETS
        ).labels()
        self.log_lines_left_out = self.counter("log_lines_left_out", "Request log lines not sampled.").labels()
        self.policy_reload_errors = self.counter("policy_reload_errors", "Policy files refused while running.").labels()
        self.policy_reload_failed = self._gauge(
            "policy_reload_failed", "1 while the policy file on disk is a refused one."
        )
        self.policy_version = self._gauge("policy_version", "The policy in force.", "version")
        self.build_info = self._gauge("build_info", "The running version.", "version")
        self.build_info.labels(__version__).set(1)


class _LiveGauge(Collector):
    def __init__(
        self, name: str, documentation: str, labels: tuple[str, ...], read: Callable[[], Iterable[Sample]]
    ) -> None:
        self._name = name
        self._documentation = documentation
        self._labels = labels
        self._read = read

    def describe(self) -> Iterator[GaugeMetricFamily]:
        """The family without samples, so that registering reads nothing."""
        yield GaugeMetricFamily(self._name, self._documentation, labels=self._labels)

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """The values of now."""
        family = GaugeMetricFamily(self._name, self._documentation, labels=self._labels)
        for labels, value in self._read():
            family.add_metric(labels, value)
        yield family
