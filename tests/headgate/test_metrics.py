"""Every metric of the process: its name, its labels, and that no client can make them grow without end."""

from __future__ import annotations

from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from headgate import __version__
from headgate.metrics import Metrics
from headgate.series import MAX_LABEL_VALUES, OTHER, CappedLabel, CounterFamily, HistogramFamily

GOLDEN = Path(__file__).parent / "metrics.golden"


def families(metrics: Metrics) -> dict[str, dict[tuple[tuple[str, str], ...], float]]:
    """The samples of the exposition by name, as a scraper reads them."""
    samples: dict[str, dict[tuple[tuple[str, str], ...], float]] = {}
    for family in text_string_to_metric_families(metrics.exposition().decode()):
        for sample in family.samples:
            samples.setdefault(sample.name, {})[tuple(sorted(sample.labels.items()))] = sample.value
    return samples


def touched() -> Metrics:
    """Metrics with one sample in every family that has labels."""
    metrics = Metrics()
    for family in vars(metrics).values():
        if isinstance(family, CounterFamily):
            family.labels(*family.label_names).inc()
        if isinstance(family, HistogramFamily):
            family.labels(*family.label_names).observe(1)
    metrics.set_policy_version("v")
    return metrics


def catalogue(metrics: Metrics) -> str:
    """One line a series name: `name type {labels} help`."""
    lines = []
    for family in text_string_to_metric_families(metrics.exposition().decode()):
        for name in sorted({sample.name for sample in family.samples}):
            labels = sorted({label for sample in family.samples if sample.name == name for label in sample.labels})
            lines.append(f"{name} {family.type} {{{','.join(labels)}}} {family.documentation}\n")
    return "".join(sorted(lines))


def test_the_names_types_and_labels_are_those_of_the_golden_file() -> None:
    assert catalogue(touched()) == GOLDEN.read_text()


def test_a_counter_is_one_series_without_its_date_of_birth() -> None:
    assert [name for name in families(touched()) if name.endswith("_created")] == []


def test_two_processes_in_one_interpreter_do_not_share_metrics() -> None:
    one, other = Metrics(), Metrics()

    one.policy_reload_errors.inc()

    assert families(one)["headgate_policy_reload_errors_total"][()] == 1.0
    assert families(other)["headgate_policy_reload_errors_total"][()] == 0.0


def test_the_running_version_is_shown() -> None:
    assert families(Metrics())["headgate_build_info"] == {(("version", __version__),): 1.0}


def test_only_the_policy_in_force_is_shown() -> None:
    metrics = Metrics()

    metrics.set_policy_version("aaa")
    metrics.set_policy_version("bbb")

    assert families(metrics)["headgate_policy_version"] == {(("version", "bbb"),): 1.0}


def test_a_label_past_its_cap_counts_as_other_and_those_before_keep_their_name() -> None:
    label = CappedLabel(cap=2)

    assert [label(value) for value in ("acme", "globex", "hobby", "acme", "public")] == [
        "acme",
        "globex",
        OTHER,
        "acme",
        OTHER,
    ]


def test_a_flood_of_tenants_makes_no_more_series_than_the_cap_and_one() -> None:
    metrics = Metrics()

    for number in range(MAX_LABEL_VALUES + 500):
        metrics.tokens.labels(f"team-{number}", "assistant", "prompt", "reported").inc()

    series = families(metrics)["headgate_tokens_total"]
    assert len(series) == MAX_LABEL_VALUES + 1
    assert series[("kind", "prompt"), ("model", "assistant"), ("source", "reported"), ("tenant", OTHER)] == 500.0


def test_tenants_and_limits_are_capped_apart() -> None:
    metrics = Metrics()

    for number in range(MAX_LABEL_VALUES):
        metrics.tenant_label(f"team-{number}")

    assert metrics.tenant_label("late") == OTHER
    assert metrics.limit_label("late") == "late"


def test_a_live_gauge_is_read_when_somebody_looks_and_not_before() -> None:
    metrics = Metrics()
    depths = {"best": 1.0}
    looks = 0

    def read() -> list[tuple[tuple[str, ...], float]]:
        nonlocal looks
        looks += 1
        return [((name,), depth) for name, depth in depths.items()]

    metrics.watch("queue_depth", "Requests waiting.", ("cluster",), read)
    assert looks == 0
    assert families(metrics)["headgate_queue_depth"] == {(("cluster", "best"),): 1.0}
    depths["fast"] = 2.0

    assert families(metrics)["headgate_queue_depth"] == {(("cluster", "best"),): 1.0, (("cluster", "fast"),): 2.0}
    assert looks == 2


def test_one_name_cannot_stand_for_two_metrics() -> None:
    metrics = Metrics()

    with pytest.raises(ValueError, match="Duplicated timeseries"):
        metrics.watch("decision_seconds", "Again.", (), list)


def test_what_clients_send_is_escaped_in_the_exposition() -> None:
    metrics = Metrics()
    hostile = 'a"b\\c\nheadgate_decisions_total 7'

    metrics.tokens.labels(hostile, "m", "prompt", "reported").inc()

    assert families(metrics)["headgate_tokens_total"] == {
        (("kind", "prompt"), ("model", "m"), ("source", "reported"), ("tenant", hostile)): 1.0
    }


@pytest.mark.parametrize(
    ("name", "largest"),
    [
        ("headgate_decision_seconds", 0.25),
        ("headgate_queue_wait_seconds", 600.0),
        ("headgate_time_to_first_token_seconds", 600.0),
        ("headgate_request_duration_seconds", 655.36),
        ("gen_ai_client_token_usage", 67_108_864.0),
        ("gen_ai_server_request_duration_seconds", 81.92),
        ("gen_ai_server_time_to_first_token_seconds", 10.0),
        ("gen_ai_server_time_per_output_token_seconds", 2.5),
    ],
)
def test_the_buckets_of_a_histogram_reach_as_far_as_what_it_measures(name: str, largest: float) -> None:
    buckets = families(touched())[f"{name}_bucket"]

    bounds = sorted(float(dict(labels)["le"]) for labels in buckets)

    assert bounds[-2:] == [largest, float("inf")]
