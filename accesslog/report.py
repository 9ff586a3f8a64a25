"""A record -> metrics and one JSON log line."""

from __future__ import annotations

import logging
from dataclasses import fields

from headgate.logs import FIELDS
from headgate.metrics import Metrics
from headgate.record import RequestRecord

_NAMES = tuple(field.name for field in fields(RequestRecord))
_log = logging.getLogger("headgate.request")


class Reporter:
    """Feeds the process's metrics and log."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def report(self, record: RequestRecord) -> None:
        """Count and log one finished request."""
        metrics = self._metrics
        # Only a request that ran names a model of the policy; a refused one may name anything.
        model = record.model if record.cluster else ""
        metrics.requests.labels(record.tier, model, record.cluster, str(record.status), record.outcome).inc()
        if record.verdict != "REJECT":
            metrics.request_duration_seconds.labels(record.tier, model).observe(record.duration_seconds)
            if record.first_byte_seconds is not None and record.status == 200:
                metrics.time_to_first_token_seconds.labels(record.tier, model).observe(record.first_byte_seconds)
        tenant = metrics.tenant_label(record.tenant)
        for kind, amount in (
            ("prompt", record.prompt_tokens),
            ("output", record.output_tokens),
            ("cached", record.cached_tokens),
        ):
            if amount:
                metrics.tokens.labels(tenant, model, kind, "reported").inc(amount)
        _log.info("request", extra={FIELDS: {name: getattr(record, name) for name in _NAMES}})
