"""Every query of the dashboards, rules and the scaler, asked of a Prometheus that has seen the demo."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

REPOSITORY = Path(__file__).resolve().parents[3]
DASHBOARDS = sorted((REPOSITORY / "deploy/grafana/dashboards").glob("*.json"))
RULES = sorted((REPOSITORY / "deploy/prometheus/rules").glob("*.yml"))
SCALER = REPOSITORY / "deploy/kubernetes/keda-scaledobject.yaml"

LEGITIMATELY_EMPTY = {
    ("clusters", "GPU utilisation"): "there is no GPU here",
    ("clusters", "Wait in the servers' queues"): "a mean of the requests of the last second, when there were some",
    ("clusters", "Retries"): "nothing had to be tried again",
    ("clusters", "Errors of servers and on the way to them"): "nothing failed",
    ("sidecar", "Servers that gave no usable answer"): "all answered",
}


def queries(dashboard: Path) -> Iterator[tuple[str, str]]:
    for panel in json.loads(dashboard.read_text())["panels"]:
        for target in panel["targets"]:
            expression = target["expr"].replace("$__rate_interval", "1m").replace("$__range", "5m")
            yield panel["title"], expression


def rules() -> Iterator[tuple[str, str]]:
    for path in RULES:
        for group in yaml.safe_load(path.read_text())["groups"]:
            for rule in group["rules"]:
                yield rule.get("record") or rule["alert"], rule["expr"]


@pytest.mark.parametrize("dashboard", DASHBOARDS, ids=lambda path: path.stem)
def test_every_panel_shows_something(dashboard: Path, observed: Any) -> None:
    expected = [each for each in queries(dashboard) if (dashboard.stem, each[0]) not in LEGITIMATELY_EMPTY]
    empty = {title: query for title, query in expected if not observed.prometheus.ask(query)}

    assert empty == {}


def test_every_recording_rule_has_a_value_and_no_alert_fires_for_nothing(observed: Any) -> None:
    answers = {name: observed.prometheus.ask(query) for name, query in rules()}

    assert [name for name, samples in answers.items() if name.startswith("headgate:") and not samples] == []
    silent = {"HeadgateDown", "HeadgateSignalStale", "HeadgateServerNotReady", "HeadgatePolicyRefused"}
    assert {name: answers[name] for name in silent if answers[name]} == {}


def test_prometheus_evaluates_every_rule_without_an_error(observed: Any) -> None:
    groups = httpx.get(f"{observed.prometheus.url}/api/v1/rules").json()["data"]["groups"]
    health = {rule["name"]: (rule["health"], rule.get("lastError", "")) for group in groups for rule in group["rules"]}

    assert health == {name: ("ok", "") for name, _ in rules()}


def test_every_series_an_alert_looks_at_exists(observed: Any) -> None:
    names = {name for _, query in rules() for name in re.findall(r"\b(?:headgate|ratelimit)_[a-z_0-9]+\b", query)}

    assert [name for name in sorted(names) if not observed.prometheus.ask(name)] == []


def test_every_metric_a_query_names_is_documented() -> None:
    documented = (REPOSITORY / "docs/metrics.md").read_text()
    asked = [query for dashboard in DASHBOARDS for _, query in queries(dashboard)] + [query for _, query in rules()]
    names = {name for query in asked for name in re.findall(r"\bheadgate_[a-z_0-9]+\b", query)}

    assert [name for name in sorted(names) if re.sub(r"_(bucket|count|sum)$", "", name) not in documented] == []


@pytest.mark.parametrize("trigger", [0, 1], ids=["what waits", "tokens in flight"])
def test_the_scaler_asks_for_one_number(trigger: int, observed: Any) -> None:
    metadata = yaml.safe_load(SCALER.read_text())["spec"]["triggers"][trigger]["metadata"]

    assert len(observed.prometheus.ask(metadata["query"])) == 1
    assert float(metadata["threshold"]) > 0


def test_the_rules_are_good_and_every_alert_fires_when_it_should(promtool: Path) -> None:
    folder = REPOSITORY / "deploy/prometheus"
    check = subprocess.run([promtool, "check", "rules", *RULES], capture_output=True, text=True)
    test = subprocess.run([promtool, "test", "rules", folder / "rules_test.yml"], capture_output=True, text=True)

    assert check.returncode == 0, check.stdout + check.stderr
    assert test.returncode == 0, test.stdout + test.stderr


def test_every_alert_has_a_unit_test() -> None:
    tests = yaml.safe_load((REPOSITORY / "deploy/prometheus/rules_test.yml").read_text())["tests"]
    fired = {case["alertname"] for test in tests for case in test.get("alert_rule_test", []) if case["exp_alerts"]}

    assert fired == {name for name, _ in rules() if not name.startswith("headgate:")}


def test_the_configuration_is_one_prometheus_takes(promtool: Path) -> None:
    configuration = REPOSITORY / "deploy/prometheus/prometheus.yml"

    assert subprocess.run([promtool, "check", "config", configuration], capture_output=True).returncode == 0
