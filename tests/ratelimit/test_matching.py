import sys
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

import pytest

from ratelimit.limits import Entry, Limit, Unit
from ratelimit.matching import ConfiguredDescriptor, Domain

Pairs = list[tuple[str, str]]
TraceFunction = Callable[[FrameType, str, Any], Any]


def node(
    key: str,
    value: str = "",
    *children: ConfiguredDescriptor,
    rpu: int | None = None,
    share_threshold: bool = False,
    detailed_metric: bool = False,
    value_to_metric: bool = False,
) -> ConfiguredDescriptor:
    return ConfiguredDescriptor(
        key=key,
        value=value,
        limit=None if rpu is None else Limit(requests_per_unit=rpu, unit=Unit.MINUTE),
        share_threshold=share_threshold,
        detailed_metric=detailed_metric,
        value_to_metric=value_to_metric,
        descriptors=children,
    )


def entries(pairs: Pairs) -> tuple[Entry, ...]:
    return tuple(Entry(*pair) for pair in pairs)


def limit_of(domain: Domain, pairs: Pairs) -> int | None:
    match = domain.match(entries(pairs))
    return match.limit.requests_per_unit if match else None


EXAMPLE = Domain(
    "test",
    [
        node("exact", "one", rpu=1),
        node("exact", rpu=2),
        node("exact", "banned", rpu=0),
        node("exact", "free"),
        node("wild", "foo*", rpu=10),
        node("wild", "foo/bar*", rpu=11),
        node("wild", "fool", rpu=12),
        node("star", "*", rpu=20),
        node("star", rpu=21),
        node("k*y", rpu=30),
        node("literal", "x*", rpu=40),
        node("a", "b_c", rpu=50),
        node("bare_key", rpu=60),
        node("parent", "narrow", node("child", "only", rpu=70)),
        node("parent", "", node("child", "", rpu=71), rpu=72),
    ],
)


@pytest.mark.parametrize(
    ("request_pairs", "rpu"),
    [
        pytest.param([("exact", "one")], 1, id="exact_value"),
        pytest.param([("exact", "other")], 2, id="bare_key_takes_any_other_value"),
        pytest.param([("exact", "")], 2, id="bare_key_takes_the_empty_value"),
        pytest.param([("exact", "banned")], 0, id="a_limit_of_zero_is_a_limit"),
        pytest.param([("exact", "free")], None, id="exact_value_without_limit_beats_the_default"),
        pytest.param([("exact", "ONE")], 2, id="values_are_case_sensitive"),
        pytest.param([("unknown", "one")], None, id="unknown_key"),
        pytest.param([("wild", "foo1")], 10, id="pattern"),
        pytest.param([("wild", "foo/bar1")], 10, id="first_pattern_in_file_order_beats_the_longer_one"),
        pytest.param([("wild", "fool")], 12, id="exact_value_beats_a_pattern_before_it"),
        pytest.param([("wild", "bar")], None, id="no_pattern_and_no_default"),
        pytest.param([("star", "any")], 20, id="a_lone_star_beats_the_bare_key"),
        pytest.param([("star", "")], 20, id="a_lone_star_takes_the_empty_value"),
        pytest.param([("key", "v")], None, id="a_star_in_the_key_is_matched_with_key_and_value_together"),
        pytest.param([("kitty", "my")], 30, id="a_star_in_the_key"),
        pytest.param([("literal", "x*")], 40, id="a_literal_star_is_an_exact_value"),
        pytest.param([("literal", "xyz")], 40, id="and_a_pattern_as_well"),
        pytest.param([("a_b", "c")], 50, id="an_underscore_in_the_key_joins_as_one_in_the_value"),
        pytest.param([("bare", "key")], 60, id="key_and_value_may_meet_a_bare_key"),
        pytest.param([("parent", "narrow"), ("child", "only")], 70, id="nested"),
        pytest.param([("parent", "wide"), ("child", "any")], 71, id="nested_under_the_default"),
        pytest.param([("parent", "narrow"), ("child", "any")], None, id="no_way_back_to_the_default_sibling"),
        pytest.param([("parent", "wide")], 72, id="a_limit_above_a_nested_one"),
        pytest.param([("parent", "narrow")], None, id="shallower_than_any_limit"),
        pytest.param([("exact", "one"), ("more", "x")], None, id="deeper_than_the_configuration"),
        pytest.param([("child", "only"), ("parent", "narrow")], None, id="the_order_of_entries_matters"),
        pytest.param([], None, id="no_entries"),
    ],
)
def test_an_entry_takes_the_exact_value_then_a_pattern_then_the_bare_key(request_pairs: Pairs, rpu: int | None) -> None:
    assert limit_of(EXAMPLE, request_pairs) == rpu


def keys(domain: Domain, pairs: Pairs) -> tuple[str, str]:
    match = domain.match(entries(pairs))
    assert match is not None
    return match.counter_key, match.metric_key


@pytest.mark.parametrize(
    ("configured", "request_pairs", "counter_key", "metric_key"),
    [
        pytest.param(node("k", "v", rpu=1), [("k", "v")], "d_k_v", "d.k_v", id="exact"),
        pytest.param(node("k", rpu=1), [("k", "v")], "d_k_v", "d.k", id="default"),
        pytest.param(node("k", rpu=1), [("k", "")], "d_k_", "d.k", id="default_with_an_empty_value"),
        pytest.param(node("k", "", node("l", "w", rpu=1)), [("k", "v"), ("l", "w")], "d_k_v_l_w", "d.k.l_w", id="two"),
        pytest.param(node("k", "v*", rpu=1), [("k", "v1")], "d_k_v1", "d.k_v*", id="pattern"),
        pytest.param(
            node("k", "v*", rpu=1, share_threshold=True), [("k", "v1")], "d_k_v*", "d.k_v*", id="shared_pattern"
        ),
        pytest.param(
            node("k", "v*", rpu=1, share_threshold=True, detailed_metric=True, value_to_metric=True),
            [("k", "v1")],
            "d_k_v*",
            "d.k_v*",
            id="a_shared_pattern_never_shows_a_value",
        ),
        pytest.param(node("k*", rpu=1), [("key", "v")], "d_key_v", "d.key_k*", id="a_star_in_the_key"),
        pytest.param(node("k", rpu=1, detailed_metric=True), [("k", "v")], "d_k_v", "d.k_v", id="detailed"),
        pytest.param(
            node("k", "", node("l", rpu=1, detailed_metric=True)),
            [("k", "v"), ("l", "w")],
            "d_k_v_l_w",
            "d.k_v.l_w",
            id="detailed_counts_at_the_last_entry_for_all",
        ),
        pytest.param(
            node("k", "", node("l", rpu=1), detailed_metric=True),
            [("k", "v"), ("l", "w")],
            "d_k_v_l_w",
            "d.k.l",
            id="detailed_above_the_last_entry_counts_for_none",
        ),
        pytest.param(
            node("k", "", node("l", rpu=1), value_to_metric=True),
            [("k", "v"), ("l", "w")],
            "d_k_v_l_w",
            "d.k_v.l",
            id="value_to_metric_counts_at_its_own_level",
        ),
        pytest.param(
            node("k", "v*", rpu=1, value_to_metric=True), [("k", "v1")], "d_k_v1", "d.k_v1", id="value_of_a_pattern"
        ),
        pytest.param(node("k", rpu=1, value_to_metric=True), [("k", "")], "d_k_", "d.k", id="an_empty_value"),
    ],
)
def test_a_match_counts_and_is_reported_under_the_references_names(
    configured: ConfiguredDescriptor, request_pairs: Pairs, counter_key: str, metric_key: str
) -> None:
    assert keys(Domain("d", [configured]), request_pairs) == (counter_key, metric_key)


def test_an_override_counts_where_a_configured_limit_of_the_same_window_would() -> None:
    pairs = [("k", "v"), ("l", "")]
    domain = Domain("d", [node("k", "", node("l", rpu=1))])

    match = domain.override(entries(pairs), Limit(requests_per_unit=9, unit=Unit.HOUR))

    assert match.limit.requests_per_unit == 9
    assert (match.counter_key, match.metric_key) == (keys(domain, pairs)[0], "d.k_v.l")


def many(count: int) -> Iterator[ConfiguredDescriptor]:
    for index in range(count):
        yield node("tenant", f"t{index:06}", rpu=index)
        yield node("path", f"p{index:06}*", rpu=index)


def lines_run(function: Callable[[], object]) -> int:
    """How many lines of Python a call runs: its cost, without a clock."""
    count = 0

    def trace(_frame: FrameType, event: str, _argument: object) -> TraceFunction:
        nonlocal count
        count += event == "line"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        function()
    finally:
        sys.settrace(before)
    return count


@pytest.mark.parametrize("pairs", [[("tenant", "t000007")], [("path", "p000007/x")], [("path", "none")]])
def test_a_match_costs_the_same_among_ten_thousand_descriptors_as_among_ten(pairs: Pairs) -> None:
    few, many_more = Domain("d", many(10)), Domain("d", many(10_000))

    assert limit_of(few, pairs) == limit_of(many_more, pairs)
    assert lines_run(lambda: limit_of(few, pairs)) == lines_run(lambda: limit_of(many_more, pairs))
