"""A decision in metrics and log: by the policy's own words, never by the client's."""

from __future__ import annotations

import json
import logging
from typing import Any

import pytest

from extproc.events import Decision, Verdict
from extproc.report import Reporter
from headgate.logs import JsonFormatter
from headgate.metrics import Metrics


def decided(**fields: Any) -> Decision:
    known = {
        "request_id": "r-1",
        "verdict": Verdict.ADMIT,
        "reason": "",
        "status": 200,
        "tenant": "acme",
        "tier": "premium",
        "model": "assistant",
        "cluster": "best",
    }
    return Decision(**known | fields)


def counted(metrics: Metrics, **labels: str) -> float | None:
    known = {"tier": "premium", "model": "assistant", "cluster": "best", "verdict": "ADMIT", "reason": ""}
    return metrics.registry.get_sample_value("headgate_decisions_total", known | labels)


def test_a_decision_is_counted_by_tier_model_cluster_verdict_and_reason() -> None:
    metrics = Metrics()
    report = Reporter(metrics).report

    report(decided(), 0.001)
    report(decided(), 0.001)
    report(decided(verdict=Verdict.REJECT, reason="queue_full", status=429), 0.001)

    assert counted(metrics) == 2.0
    assert counted(metrics, verdict="REJECT", reason="queue_full") == 1.0


def test_a_model_the_policy_does_not_know_is_no_label() -> None:
    metrics = Metrics()

    Reporter(metrics).report(
        decided(model="' OR 1=1", cluster="", verdict=Verdict.REJECT, reason="unknown_model"), 0.001
    )

    assert counted(metrics, model="", cluster="", verdict="REJECT", reason="unknown_model") == 1.0
    assert b"OR 1=1" not in metrics.exposition()


def test_deciding_is_timed_and_so_is_the_wait_if_there_was_one() -> None:
    metrics = Metrics()
    report = Reporter(metrics).report

    report(decided(), 0.0002)
    report(decided(verdict=Verdict.QUEUE, queue_wait_seconds=1.5), 0.0003)

    value = metrics.registry.get_sample_value
    assert value("headgate_decision_seconds_sum") == pytest.approx(0.0005)
    assert value("headgate_decision_seconds_count") == 2.0
    waited = {"tier": "premium", "cluster": "best"}
    assert value("headgate_queue_wait_seconds_count", waited) == 1.0
    assert value("headgate_queue_wait_seconds_sum", waited) == 1.5


def test_at_debug_the_decision_is_one_json_line(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "headgate.decision")

    Reporter(Metrics()).report(decided(verdict=Verdict.DEGRADE, reason="queue_timeout", prompt_tokens=12), 0.001)

    [record] = caplog.records
    line = json.loads(JsonFormatter().format(record))
    assert (line["message"], line["verdict"], line["reason"], line["prompt_tokens"], line["request_id"]) == (
        "decision",
        "DEGRADE",
        "queue_timeout",
        12,
        "r-1",
    )


def test_at_info_nothing_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "headgate.decision")

    Reporter(Metrics()).report(decided(), 0.001)

    assert caplog.records == []
