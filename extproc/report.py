"""A decision -> metrics, spans where there are any, and at DEBUG a log line.

The line per finished request is the access log's.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from msgspec.structs import asdict

from extproc.events import Decision
from headgate.logs import FIELDS
from headgate.metrics import Metrics

_log = logging.getLogger("headgate.decision")


class Reporter:
    """Feeds the process's metrics and log.

    Args:
        trace: makes spans of a decision and the seconds it took; None where nobody wants them.
    """

    def __init__(self, metrics: Metrics, trace: Callable[[Decision, float], None] | None = None) -> None:
        self._metrics = metrics
        self._trace = trace

    def report(self, decision: Decision, decision_seconds: float) -> None:
        """Count one decision."""
        # Only a request that was routed names a model of the policy; a refused one may name anything.
        model = decision.model if decision.cluster else ""
        self._metrics.decisions.labels(decision.tier, model, decision.cluster, decision.verdict, decision.reason).inc()
        self._metrics.decision_seconds.observe(decision_seconds)
        if decision.queue_wait_seconds:
            wait = self._metrics.queue_wait_seconds.labels(decision.tier, decision.cluster)
            wait.observe(decision.queue_wait_seconds)
        if self._trace is not None:
            self._trace(decision, decision_seconds)
        if _log.isEnabledFor(logging.DEBUG):
            _log.debug("decision", extra={FIELDS: asdict(decision)})
