"""A record -> metrics. Each combination of names is looked up once; after that a request costs its additions."""

from __future__ import annotations

from collections.abc import Callable

from accesslog.gen_ai import GenAi
from accesslog.objective import has_met
from headgate.cost import cost_dollars
from headgate.metrics import Metrics
from headgate.policy.model import Policy
from headgate.record import Outcome, RequestRecord, UsageSource

_REPORTED, _ESTIMATED = UsageSource.REPORTED.value, UsageSource.ESTIMATED.value


class Reporter:
    """Feeds the process's metrics; `policy` yields the one in force, for prices and objectives."""

    def __init__(self, metrics: Metrics, policy: Callable[[], Policy]) -> None:
        self._metrics = metrics
        self._policy = policy
        self._gen_ai = GenAi(metrics)

    def report(self, record: RequestRecord) -> None:
        """Count one finished request."""
        # Only a request that had a route names a model of the policy; a refused one may name anything.
        model = record.model if record.cluster else ""
        metrics = self._metrics
        metrics.requests.labels(record.tier, model, record.cluster, str(record.status), record.outcome).inc()
        metrics.tenant_requests.labels(record.tenant, record.outcome).inc()
        self._judge(record)
        if record.outcome is Outcome.REFUSED:
            return
        self._time(record, model)
        if record.has_run:
            self._spend(record, model)
        if record.cluster:
            self._gen_ai.report(record)

    def _judge(self, record: RequestRecord) -> None:
        tier = self._policy().tiers.get(record.tier)
        if tier is None or tier.ttft_slo_seconds is None:
            return
        met = has_met(record, tier.ttft_slo_seconds)
        if met is not None:
            self._metrics.slo_requests.labels(record.tier).inc()
            self._metrics.goodput_requests.labels(record.tier).inc(met)

    def _time(self, record: RequestRecord, model: str) -> None:
        metrics = self._metrics
        metrics.request_duration_seconds.labels(record.tier, model).observe(record.duration_seconds)
        if record.attempts > 1:
            metrics.retries.labels(record.cluster).inc(record.attempts - 1)
        if not record.is_stream or record.status >= 400 or record.first_byte_seconds is None:
            return
        metrics.time_to_first_token_seconds.labels(record.tier, model).observe(record.first_byte_seconds)
        if record.upstream_first_byte_seconds is not None:
            upstream = metrics.upstream_time_to_first_token_seconds.labels(model, record.cluster)
            upstream.observe(record.upstream_first_byte_seconds)
        if record.output_token_seconds is not None:
            metrics.time_per_output_token_seconds.labels(model, record.cluster).observe(record.output_token_seconds)

    def _spend(self, record: RequestRecord, model: str) -> None:
        metrics, tenant = self._metrics, record.tenant
        prompt_source = _ESTIMATED if record.prompt_tokens is None else _REPORTED
        metrics.tokens.labels(tenant, model, "prompt", prompt_source).inc(record.used_prompt_tokens)
        output_source = _ESTIMATED if record.output_tokens is None else _REPORTED
        metrics.tokens.labels(tenant, model, "output", output_source).inc(record.used_output_tokens)
        if record.cached_tokens:
            metrics.tokens.labels(tenant, model, "cached", _REPORTED).inc(record.cached_tokens)
        if record.prompt_tokens and record.estimated_prompt_tokens:
            ratio = record.estimated_prompt_tokens / record.prompt_tokens
            metrics.token_estimate_error_ratio.labels(model).observe(ratio)
        cluster = self._policy().clusters.get(record.cluster)
        if cluster is not None:
            metrics.cost_dollars.labels(tenant, model).inc(cost_dollars(record, cluster.price))
