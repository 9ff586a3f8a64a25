"""The counters as Prometheus metrics, under the names the reference's statsd mapper gives them.

The names lack the `_total` Prometheus asks for; dashboards made for the reference rely on them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from prometheus_client import CollectorRegistry, Histogram
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from ratelimit.stats import LimitCounters, Stats

_BUCKETS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.02, 0.05, 0.1, 1.0)
"""Seconds. Envoy waits 0.02 unless told otherwise."""

_LIMIT = "ratelimit_service_rate_limit_"


def response_times(registry: CollectorRegistry) -> Callable[[float], None]:
    """The histogram of response times: call it with the seconds each call took."""
    times = Histogram(
        "ratelimit_service_response_time_seconds",
        "From a call's arrival to its answer.",
        ["grpc_method"],
        buckets=_BUCKETS,
        registry=registry,
    )
    return times.labels("ShouldRateLimit").observe


class RatelimitCollector(Collector):
    """Reads the counters when somebody looks.

    Args:
        keys_in_memory: how many keys the memory store holds.
    """

    def __init__(self, stats: Stats, keys_in_memory: Callable[[], int]) -> None:
        self._stats = stats
        self._keys_in_memory = keys_in_memory

    def describe(self) -> Iterable[Metric]:
        """The families without samples."""
        return [Metric(metric.name, metric.documentation, metric.type) for metric in self.collect()]

    def collect(self) -> Iterator[Metric]:
        """The values of now."""
        yield from self._limits()
        service = self._stats.service
        errors = Metric("ratelimit_service_should_rate_limit_error", "Calls that failed.", "unknown")
        errors.add_sample(errors.name, {"err_type": "redis_error"}, service.redis_error)
        errors.add_sample(errors.name, {"err_type": "service_error"}, service.service_error)
        yield errors
        requests = Metric("ratelimit_service_total_requests", "Calls.", "unknown")
        requests.add_sample(requests.name, {"grpc_method": "ShouldRateLimit"}, service.total_requests)
        yield requests
        for name, text in (
            ("config_load_success", "Configurations that came into force."),
            ("config_load_error", "Configurations that were refused."),
            ("global_shadow_mode", "Requests that only shadow mode let pass."),
        ):
            yield _single(f"ratelimit_service_{name}", text, "unknown", getattr(service, name))
        yield _single("headgate_rate_limit_keys", "Counters in memory.", "gauge", self._keys_in_memory())

    def _limits(self) -> Iterator[Metric]:
        not_found = Metric(f"{_LIMIT}domain_not_found", "Requests for a domain that is not configured.", "unknown")
        for domain, count in self._stats.domains_not_found.items():
            not_found.add_sample(not_found.name, {"domain": domain}, count)
        yield not_found
        for field in LimitCounters.__slots__:
            metric = Metric(f"{_LIMIT}{field}", "Hits.", "unknown")
            for labels, value in self._by_labels(field).items():
                names = ("domain", "key1", "key2")
                metric.add_sample(metric.name, dict(zip(names, labels, strict=False)), value)
            yield metric

    def _by_labels(self, field: str) -> dict[tuple[str, ...], int]:
        """Sums per domain and first two keys: the reference's labels end there too."""
        sums: dict[tuple[str, ...], int] = {}
        for key, counters in self._stats.limits.items():
            sums[key[:3]] = sums.get(key[:3], 0) + getattr(counters, field)
        return sums


def _single(name: str, text: str, kind: str, value: float) -> Metric:
    metric = Metric(name, text, kind)
    metric.add_sample(name, {}, value)
    return metric
