import pytest

from ratelimit.charges import Tally
from ratelimit.exposition import RatelimitCollector
from ratelimit.limiter import Plan, Planned, judge
from ratelimit.limits import Limit, Unit
from ratelimit.matching import Match
from ratelimit.stats import Stats, sanitized, split_hits


def planned(*metric: str, hits: int = 1) -> Plan:
    limit = Limit(requests_per_unit=10, unit=Unit.MINUTE)
    return Plan((Planned(Match(limit, "key", metric), hits),))


def count(stats: Stats, plan: Plan, tally: Tally) -> None:
    stats.asked("d", plan)
    stats.answered(plan, (tally,), judge(plan, (tally,)))


@pytest.mark.parametrize(
    ("hits", "after", "over", "near"),
    [(1, 8, 0, 0), (1, 9, 0, 1), (5, 10, 0, 2), (5, 12, 2, 2), (5, 20, 5, 0), (3, 11, 1, 2), (0, 10, 0, 0)],
)
def test_hits_are_split_at_the_threshold_and_at_the_limit(hits: int, after: int, over: int, near: int) -> None:
    assert split_hits(hits, after, limit=10, near=8) == (over, near)


def test_names_are_as_statsd_takes_them() -> None:
    assert sanitized("d.ip_10.0.0.1:80|x.1.5") == "d.ip_10_0_0_1_80_x.1.5"


def test_series_are_bounded_and_the_rest_counts_as_other() -> None:
    stats = Stats(max_series=3)
    for at in range(50):
        count(stats, planned("d", f"key_{at}"), Tally(False, 1, 1, 1.0))
        stats.asked(f"unknown-{at}", Plan((), is_known_domain=False))

    assert len(stats.limits) == 4
    assert stats.limits["other",].total_hits == 47
    assert (len(stats.domains_not_found), stats.domains_not_found["other"]) == (4, 47)


def test_what_is_given_back_is_counted_apart() -> None:
    stats = Stats()
    count(stats, planned("d", "k", hits=-5), Tally(False, 0, 0, 1.0))

    assert stats.limits["d", "k"].total_negative_hits == 5
    assert stats.limits["d", "k"].total_hits == 0


def test_prometheus_sums_what_lies_below_the_second_key() -> None:
    stats = Stats()
    for below in ("a", "b"):
        count(stats, planned("d", "x", "y", below), Tally(False, 1, 1, 1.0))
    count(stats, planned("d", "x"), Tally(False, 1, 1, 1.0))

    families = {family.name: family for family in RatelimitCollector(stats, lambda: 0).collect()}
    samples = families["ratelimit_service_rate_limit_total_hits"].samples

    assert [(sample.labels, sample.value) for sample in samples] == [
        ({"domain": "d", "key1": "x", "key2": "y"}, 2),
        ({"domain": "d", "key1": "x"}, 1),
    ]
