import pytest

from ratelimit.budget_headers import budget_headers
from ratelimit.durations import duration_text
from ratelimit.limits import Code, Limit, Status, Unit, Verdict


def status(name: str, reset_seconds: float | None = 12.0) -> Status:
    limit = Limit(requests_per_unit=600, unit=Unit.MINUTE, name=name)
    return Status(limit=limit, remaining=599, reset_seconds=reset_seconds)


def test_each_budget_has_its_three_headers_in_openais_names() -> None:
    verdict = Verdict(Code.OK, (status("requests_per_minute"), status("tokens_per_minute", 360.0), Status()))

    assert budget_headers(verdict) == (
        ("x-ratelimit-limit-requests", "600"),
        ("x-ratelimit-remaining-requests", "599"),
        ("x-ratelimit-reset-requests", "12s"),
        ("x-ratelimit-limit-tokens", "600"),
        ("x-ratelimit-remaining-tokens", "599"),
        ("x-ratelimit-reset-tokens", "6m0s"),
    )


def test_concurrency_and_a_count_that_is_not_known_say_nothing() -> None:
    verdict = Verdict(Code.OK, (status("concurrency"), status("tokens_per_minute", None)))

    assert budget_headers(verdict) == ()


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0, "0s"),
        (0.0001, "1ms"),
        (0.02, "20ms"),
        (1.0, "1s"),
        (8.64, "8.64s"),
        (59.9999, "1m0s"),
        (72.5, "1m12.5s"),
        (360.0, "6m0s"),
        (3600.5, "1h0m0.5s"),
    ],
)
def test_durations_are_gos(seconds: float, text: str) -> None:
    assert duration_text(seconds) == text
