"""Families that show themselves say what prometheus_client would say of the same values."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.parser import text_string_to_metric_families

from headgate import series
from headgate.series import OTHER, CappedLabel, CounterFamily, HistogramFamily, Registry

BOUNDS = (0.1, 1.0, 2.5)
LABEL = st.text(max_size=8)
VALUES = st.lists(st.tuples(LABEL, LABEL, st.floats(0, 1e9)), max_size=12)


def caps(count: int = 2) -> list[CappedLabel]:
    return [CappedLabel() for _ in range(count)]


def read(page: str) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    families = text_string_to_metric_families(page)
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in families
        for sample in family.samples
        if not sample.name.endswith("_created")
    }


def collected(registry: CollectorRegistry) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in registry.collect()
        for sample in family.samples
        if not sample.name.endswith("_created")
    }


@given(VALUES)
def test_a_counter_is_shown_and_collected_as_the_librarys_own(values: list[tuple[str, str, float]]) -> None:
    ours, theirs = Registry(), CollectorRegistry()
    family = CounterFamily("spent", "Spent.", ("a", "b"), caps())
    ours.register(family)
    counter = Counter("spent", "Spent.", ("a", "b"), registry=theirs)

    for first, second, value in values:
        family.labels(first, second).inc(value)
        counter.labels(first, second).inc(value)

    assert collected(ours) == collected(theirs)
    assert read(ours.exposition().decode()) == collected(theirs)


@given(VALUES)
def test_a_histogram_is_shown_and_collected_as_the_librarys_own(values: list[tuple[str, str, float]]) -> None:
    ours, theirs = Registry(), CollectorRegistry()
    family = HistogramFamily("took", "Took.", ("a", "b"), caps(), BOUNDS)
    ours.register(family)
    histogram = Histogram("took", "Took.", ("a", "b"), buckets=BOUNDS, registry=theirs)

    for first, second, value in values:
        family.labels(first, second).observe(value)
        histogram.labels(first, second).observe(value)

    assert collected(ours) == collected(theirs)
    assert read(ours.exposition().decode()) == collected(theirs)


def test_a_value_on_a_bound_is_below_it() -> None:
    family = HistogramFamily("took", "Took.", (), [], BOUNDS)

    family.labels().observe(1.0)

    assert family.labels().counts == [0, 1, 0, 0]


def test_series_without_labels_have_no_braces() -> None:
    family = CounterFamily("spent", "Spent.", (), [])
    family.labels().inc(2)

    assert list(family.render())[1:] == ["spent_total 2.0\n"]


def test_every_label_is_capped_wherever_it_is() -> None:
    family = CounterFamily("spent", "Spent.", ("a", "b"), [CappedLabel(2), CappedLabel(1)])

    for first, second in (("x", "1"), ("y", "2"), ("z", "1"), ("z", "3"), ("x", "1")):
        family.labels(first, second).inc()

    shown = read("".join(family.render()))
    assert {tuple(dict(labels).values()): value for (_, labels), value in shown.items()} == {
        ("x", "1"): 2.0,
        ("y", OTHER): 1.0,
        (OTHER, "1"): 1.0,
        (OTHER, OTHER): 1.0,
    }


def test_combinations_past_the_familys_own_cap_are_one_series(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(series, "MAX_SERIES", 3)
    family = CounterFamily("spent", "Spent.", ("a", "b"), caps())

    for number in range(10):
        family.labels(str(number), "b").inc()

    shown = read("".join(family.render()))
    assert len(shown) == 4
    assert shown["spent_total", (("a", OTHER), ("b", OTHER))] == 7.0
