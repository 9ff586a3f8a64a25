"""Every metric of the process and the one place that names Prometheus.

Labels with values from outside are capped: past the cap a value counts as `other`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from headgate import __version__

MAX_LABEL_VALUES = 1000
OTHER = "other"
_DECISION_BUCKETS = (0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.05, 0.25)
_WAIT_BUCKETS = (0.001, 0.005, 0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0)
# OpenTelemetry's buckets for gen_ai.server.time_to_first_token and gen_ai.server.request.duration.
_FIRST_TOKEN_BUCKETS = (0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)
_DURATION_BUCKETS = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92)

Sample = tuple[tuple[str, ...], float]


class CappedLabel:
    """Lets the first `MAX_LABEL_VALUES` distinct values through; the rest become `other`."""

    def __init__(self, cap: int = MAX_LABEL_VALUES) -> None:
        self._cap = cap
        self._seen: set[str] = set()

    def __call__(self, value: str) -> str:
        """The value, or `other`."""
        if value in self._seen:
            return value
        if len(self._seen) >= self._cap:
            return OTHER
        self._seen.add(value)
        return value


class Metrics:
    """The process's metrics; services hold the one they feed."""

    def __init__(self) -> None:
        # One more series for every counter, saying nothing a query asks for.
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry = CollectorRegistry()
        counter, histogram, gauge = _factories(self.registry)
        self.decisions = counter("decisions", "Requests decided on.", "tier", "model", "cluster", "verdict", "reason")
        self.queue_wait_seconds = histogram(
            "queue_wait_seconds", "Time requests waited for a slot.", _WAIT_BUCKETS, "tier", "cluster"
        )
        self.decision_seconds = histogram(
            "decision_seconds", "Time spent deciding, without any wait in a queue.", _DECISION_BUCKETS
        )
        self.rate_limit_decisions = counter(
            "rate_limit_decisions", "Rate limit descriptors judged.", "domain", "limit", "code"
        )
        self.requests = counter(
            "requests", "Requests that ended, as Envoy logged them.", "tier", "model", "cluster", "code"
        )
        self.tokens = counter("tokens", "Tokens used, as reported or estimated.", "tenant", "model", "kind")
        self.request_duration_seconds = histogram(
            "request_duration_seconds", "From the request's first byte to the response's last.", _DURATION_BUCKETS,
            "tier", "model",
        )  # fmt: skip
        self.time_to_first_token_seconds = histogram(
            "time_to_first_token_seconds",
            "From the request's first byte to the first byte of the response's body.",
            _FIRST_TOKEN_BUCKETS,
            "tier",
            "model",
        )
        self.policy_reload_errors = counter("policy_reload_errors", "Policy files refused while running.")
        self.policy_reload_failed = gauge("policy_reload_failed", "1 while the policy file on disk is a refused one.")
        self.policy_version = gauge("policy_version", "The policy in force.", "version")
        self.build_info = gauge("build_info", "The running version.", "version")
        self.build_info.labels(__version__).set(1)
        self.tenant_label = CappedLabel()
        self.limit_label = CappedLabel()

    def set_policy_version(self, version: str) -> None:
        """Show one version only: the one in force."""
        self.policy_version.clear()
        self.policy_version.labels(version).set(1)

    def watch(self, name: str, documentation: str, labels: Iterable[str], read: Callable[[], Iterable[Sample]]) -> None:
        """Show a gauge whose values are read when somebody looks."""
        self.registry.register(_LiveGauge(f"headgate_{name}", documentation, tuple(labels), read))

    def exposition(self) -> bytes:
        """All metrics in Prometheus's text format."""
        return generate_latest(self.registry)


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


def _factories(
    registry: CollectorRegistry,
) -> tuple[Callable[..., Counter], Callable[..., Histogram], Callable[..., Gauge]]:
    def counter(name: str, documentation: str, *labels: str) -> Counter:
        return Counter(f"headgate_{name}", documentation, labels, registry=registry)

    def histogram(name: str, documentation: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
        return Histogram(f"headgate_{name}", documentation, labels, buckets=buckets, registry=registry)

    def gauge(name: str, documentation: str, *labels: str) -> Gauge:
        return Gauge(f"headgate_{name}", documentation, labels, registry=registry)

    return counter, histogram, gauge
