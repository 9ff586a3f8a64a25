import pytest

from headgate.errors import PolicyError
from headgate.policy.model import OnStoreFailure
from ratelimit.config import load_configuration
from ratelimit.limits import Algorithm, Entry, Limit, Unit
from ratelimit.matching import Configuration


def load(descriptor: str, root: str = "") -> Configuration:
    return load_configuration([("a.yaml", f"domain: d\n{root}\ndescriptors:\n  - {{key: k, {descriptor}}}\n".encode())])


def limit(descriptor: str) -> Limit:
    match = load(descriptor).domains["d"].match([Entry("k", "v")])
    assert match is not None
    return match.limit


def problems(descriptor: str, root: str = "") -> list[str]:
    with pytest.raises(PolicyError) as raised:
        load(descriptor, root)
    return [str(problem) for problem in raised.value.problems]


MINUTE = "rate_limit: {unit: minute, requests_per_unit: 60}"


def test_without_the_block_a_limit_is_the_references() -> None:
    assert limit(MINUTE) == Limit(requests_per_unit=60, unit=Unit.MINUTE)


@pytest.mark.parametrize(
    ("window", "unit", "multiplier"), [("30s", Unit.SECOND, 30), ("5m", Unit.MINUTE, 5), ("1h", Unit.HOUR, 1)]
)
def test_a_window_of_any_length_takes_the_place_of_the_unit(window: str, unit: Unit, multiplier: int) -> None:
    found = limit(f"rate_limit: {{requests_per_unit: 9}}, headgate: {{window: {window}}}")

    assert (found.unit, found.unit_multiplier) == (unit, multiplier)


def test_sliding_windows_leave_refused_hits_uncounted_unless_told() -> None:
    assert not limit(f"{MINUTE}, headgate: {{algorithm: sliding_window}}").counts_rejected
    assert limit(f"{MINUTE}, headgate: {{algorithm: sliding_window, count_rejected: true}}").counts_rejected
    assert not limit(f"{MINUTE}, headgate: {{count_rejected: false}}").counts_rejected


def test_a_token_bucket_has_a_burst() -> None:
    found = limit(f"{MINUTE}, headgate: {{algorithm: token_bucket, burst: 10}}")

    assert (found.algorithm, found.capacity) == (Algorithm.TOKEN_BUCKET, 10)


def test_a_concurrency_limit_needs_no_rate_limit_and_takes_its_id_from_the_last_entry() -> None:
    match = load("headgate: {max_in_flight: 4, lease: 2m}").domains["d"].match([Entry("k", "r1")])

    assert match is not None
    assert (match.limit.requests_per_unit, match.limit.lease_seconds, match.lease_id) == (4, 120, "r1")
    assert match.counter_key == "d_k_"
    assert match.metric_key == "d.k"


def test_a_limit_says_what_holds_without_redis() -> None:
    found = limit(f"{MINUTE}, headgate: {{on_store_failure: local, local_share: 0.25}}")

    assert (found.on_store_failure, found.local_share) == (OnStoreFailure.LOCAL, 0.25)


def test_a_domain_may_charge_all_or_nothing() -> None:
    assert load(MINUTE, "headgate: {all_or_nothing: true}").domains["d"].all_or_nothing
    assert not load(MINUTE).domains["d"].all_or_nothing


@pytest.mark.parametrize(
    ("block", "problem"),
    [
        ("{windw: 30s}", "unknown key 'windw' in headgate"),
        ("{algorithm: leaky}", "has to be fixed_window, sliding_window, token_bucket, not 'leaky'"),
        ("{window: 30s}", "unit and headgate.window exclude each other"),
        ("{burst: 3}", "burst means nothing for fixed_window"),
        ("{algorithm: token_bucket, count_rejected: true}", "count_rejected means nothing for token_bucket"),
        ("{max_in_flight: 3}", "max_in_flight and rate_limit exclude each other"),
        ("{local_share: 1.5}", "local_share has to be above 0 and at most 1, not '1.5'"),
        ("{on_store_failure: panic}", "has to be open, closed, local, not 'panic'"),
        ("[1]", "cannot unmarshal !!seq into headgate"),
    ],
)
def test_a_mistake_in_the_block_is_said_with_its_line(block: str, problem: str) -> None:
    found = problems(f"{MINUTE}, headgate: {block}")

    assert any(problem in text and text.startswith("a.yaml:4 ") for text in found), found


@pytest.mark.parametrize("window", ["0s", "1.5s", "30", "200000h0m1s500ms"])
def test_a_window_is_whole_seconds(window: str) -> None:
    assert problems(f"rate_limit: {{requests_per_unit: 9}}, headgate: {{window: {window}}}")


def test_a_block_without_a_limit_is_a_mistake() -> None:
    assert "headgate needs a rate_limit, or max_in_flight" in problems("headgate: {window: 30s}")[0]


def test_unlimited_takes_no_block() -> None:
    found = problems("rate_limit: {unlimited: true}, headgate: {algorithm: sliding_window}")

    assert "should not specify headgate when unlimited" in found[0]
