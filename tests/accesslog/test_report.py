"""A record in metrics and log: counted once, under names the policy knows, without a word of the client's."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from typing import Any

import pytest

from accesslog.report import Reporter
from accesslog.wire import parse_records
from headgate.logs import JsonFormatter
from headgate.metrics import Metrics
from headgate.pb import accesslog_pb2 as pb
from headgate.record import RequestRecord


def finished(**fields: Any) -> RequestRecord:
    known: dict[str, Any] = {
        "request_id": "r-1",
        "tenant": "acme",
        "tier": "premium",
        "model": "assistant",
        "cluster": "best",
        "protocol": "openai",
        "operation": "chat",
        "verdict": "ADMIT",
        "reason": "",
        "status": 200,
        "details": "via_upstream",
        "duration_seconds": 3.5,
        "first_byte_seconds": 0.25,
        "queue_wait_seconds": 0.0,
        "request_bytes": 700,
        "response_bytes": 2048,
        "attempts": 1,
        "prompt_tokens": 131,
        "output_tokens": 64,
        "cached_tokens": None,
        "estimated_prompt_tokens": 120,
        "charged_tokens": 632,
    }
    return RequestRecord(**known | fields)


class Counted:
    """Records reported into metrics of their own."""

    def __init__(self, *records: RequestRecord) -> None:
        self.metrics = Metrics()
        reporter = Reporter(self.metrics)
        for record in records:
            reporter.report(record)

    def value(self, name: str, **labels: str) -> float | None:
        return self.metrics.registry.get_sample_value(f"headgate_{name}", labels)

    def requests(self, **labels: str) -> float | None:
        known = {"tier": "premium", "model": "assistant", "cluster": "best", "code": "200", "outcome": "served"}
        return self.value("requests_total", **known | labels)


def test_a_request_is_counted_by_tier_model_cluster_and_status() -> None:
    counted = Counted(finished(), finished(), finished(status=500))

    assert (counted.requests(), counted.requests(code="500")) == (2.0, 1.0)


def test_times_are_observed_for_what_ran() -> None:
    counted = Counted(finished(), finished(verdict="QUEUE", duration_seconds=1.5, first_byte_seconds=0.5))

    labels = {"tier": "premium", "model": "assistant"}
    assert counted.value("request_duration_seconds_sum", **labels) == 5.0
    assert counted.value("request_duration_seconds_count", **labels) == 2.0
    assert counted.value("time_to_first_token_seconds_sum", **labels) == 0.75


@pytest.mark.parametrize(
    "record",
    [finished(verdict="REJECT", status=429), finished(verdict="REJECT", reason="tokens_per_minute", status=429)],
)
def test_a_refused_request_counts_but_its_times_do_not(record: RequestRecord) -> None:
    counted = Counted(record)

    assert counted.requests(code="429") == 1.0
    assert counted.value("request_duration_seconds_count", tier="premium", model="assistant") is None
    assert counted.value("time_to_first_token_seconds_count", tier="premium", model="assistant") is None


@pytest.mark.parametrize("record", [finished(status=500), finished(status=0, first_byte_seconds=None)])
def test_only_an_answer_has_a_first_token(record: RequestRecord) -> None:
    counted = Counted(record)

    assert counted.value("request_duration_seconds_count", tier="premium", model="assistant") == 1.0
    assert counted.value("time_to_first_token_seconds_count", tier="premium", model="assistant") is None


def test_tokens_are_counted_by_tenant_model_and_kind_where_they_are_known() -> None:
    counted = Counted(
        finished(), finished(prompt_tokens=9, output_tokens=None, cached_tokens=5), finished(prompt_tokens=0)
    )

    def tokens(kind: str) -> float | None:
        return counted.value("tokens_total", tenant="acme", model="assistant", kind=kind, source="reported")

    assert (tokens("prompt"), tokens("output"), tokens("cached")) == (140.0, 128.0, 5.0)


def test_a_model_the_policy_does_not_know_is_no_label() -> None:
    counted = Counted(finished(model="gpt-9", cluster="", verdict="REJECT", reason="unknown_model", status=404))

    assert counted.requests(model="", cluster="", code="404") == 1.0
    assert b"gpt-9" not in counted.metrics.exposition()


def test_tenants_beyond_the_cap_count_as_other() -> None:
    counted = Counted(*(finished(tenant=f"tenant-{number}", prompt_tokens=1) for number in range(1003)))

    assert counted.value("tokens_total", tenant="other", model="assistant", kind="prompt", source="reported") == 3.0


def test_a_request_is_one_json_line(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "headgate.request")

    Counted(finished(verdict="DEGRADE", reason="queue_timeout", queue_wait_seconds=2.0))

    [record] = caplog.records
    text = JsonFormatter().format(record)
    line = json.loads(text)
    assert "\n" not in text
    assert {key: line[key] for key in ("message", "tenant", "verdict", "reason", "queue_wait_seconds", "status")} == {
        "message": "request",
        "tenant": "acme",
        "verdict": "DEGRADE",
        "reason": "queue_timeout",
        "queue_wait_seconds": 2.0,
        "status": 200,
    }


def test_no_header_no_path_and_no_address_reaches_metrics_or_log(
    caplog: pytest.LogCaptureFixture, logged: Callable[..., pb.HTTPAccessLogEntry], batch: Callable[..., bytes]
) -> None:
    caplog.set_level(logging.DEBUG)
    message = batch(logged())
    assert b"header-secret" in message

    counted = Counted(*parse_records(message))

    written = "\n".join(JsonFormatter().format(record) for record in caplog.records)
    written += counted.metrics.exposition().decode()
    assert "acme" in written
    assert "secret" not in written
    assert "203.0.113.7" not in written
