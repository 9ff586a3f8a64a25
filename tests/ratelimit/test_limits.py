import pytest

from ratelimit.limits import Descriptor, Entry, Limit, RateLimitRequest, Unit

SOMETHING = (Entry("key", "value"),)


@pytest.mark.parametrize(
    ("on_descriptor", "on_request", "hits"),
    [(None, 0, 1), (None, 1, 1), (None, 7, 7), (0, 7, 0), (3, 7, 3)],
    ids=["neither", "one", "request", "descriptor_zero", "descriptor"],
)
def test_a_descriptors_own_hits_beat_those_of_the_request_and_the_least_is_one(
    on_descriptor: int | None, on_request: int, hits: int
) -> None:
    descriptor = Descriptor(entries=SOMETHING, hits_addend=on_descriptor)
    request = RateLimitRequest(domain="d", descriptors=(descriptor,), hits_addend=on_request)

    assert request.hits(descriptor) == hits


def test_negative_hits_are_given_back() -> None:
    descriptor = Descriptor(entries=SOMETHING, hits_addend=5, is_negative_hits=True)

    assert RateLimitRequest(domain="d", descriptors=(descriptor,)).hits(descriptor) == -5


def test_a_month_has_thirty_days_and_a_year_365() -> None:
    assert [unit.seconds for unit in Unit] == [1, 60, 3600, 86_400, 604_800, 2_592_000, 31_536_000]


def test_a_window_is_as_many_units_long_as_the_multiplier_says() -> None:
    assert Limit(unit=Unit.MINUTE, unit_multiplier=5).window_seconds == 300
