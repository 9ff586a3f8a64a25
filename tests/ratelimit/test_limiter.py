import pytest

from ratelimit.limiter import MAX_DESCRIPTORS, MAX_ENTRIES, fault, judge, plan
from ratelimit.limits import UINT32_MAX, Code, Descriptor, Entry, Limit, RateLimitRequest, Status, Unit, Verdict
from ratelimit.matching import Configuration, ConfiguredDescriptor, Domain
from ratelimit.memory import MemoryStore

T = 1_000_000.0
OK, OVER = Code.OK, Code.OVER_LIMIT


def limit(rpu: int = 1, **rest: object) -> Limit:
    return Limit(requests_per_unit=rpu, unit=Unit.MINUTE, **rest)  # type: ignore[arg-type]


def configuration(*, all_or_nothing: bool = False, **limits: Limit | None) -> Configuration:
    configured = [ConfiguredDescriptor(key=key, limit=limit) for key, limit in limits.items()]
    return Configuration({"d": Domain("d", configured, all_or_nothing=all_or_nothing)})


def request(*keys: str, domain: str = "d", hits: int = 0) -> RateLimitRequest:
    descriptors = tuple(Descriptor(entries=(Entry(key, "v"),)) for key in keys)
    return RateLimitRequest(domain=domain, descriptors=descriptors, hits_addend=hits)


class Limiter:
    """Plan, charge and judge, as the service does."""

    def __init__(self, configuration: Configuration) -> None:
        self.configuration = configuration
        self.windows = MemoryStore(lambda: T)

    def ask(self, request: RateLimitRequest) -> Verdict:
        planned = plan(request, self.configuration)
        return judge(planned, self.windows.charge_now(planned.charges(), planned.charging))

    def codes(self, *keys: str, hits: int = 0) -> tuple[Code, list[Code]]:
        verdict = self.ask(request(*keys, hits=hits))
        return verdict.code, [status.code for status in verdict.statuses]


def test_a_limited_descriptor_says_what_is_left_and_until_when() -> None:
    three = limit(3)

    assert Limiter(configuration(k=three)).ask(request("k")) == Verdict(
        OK, (Status(code=OK, limit=three, remaining=2, reset_seconds=20.0, hits=1),)
    )


def test_one_descriptor_over_its_limit_refuses_the_request_and_the_others_still_count() -> None:
    limiter = Limiter(configuration(a=limit(1), b=limit(9)))
    limiter.ask(request("a", "b"))

    refused = limiter.ask(request("a", "b"))

    assert refused.code is OVER
    assert [(status.code, status.remaining) for status in refused.statuses] == [(OVER, 0), (OK, 7)]


def test_in_an_all_or_nothing_domain_a_refused_request_costs_nothing() -> None:
    limiter = Limiter(configuration(a=limit(1), b=limit(9), all_or_nothing=True))
    limiter.ask(request("a", "b"))

    refused = limiter.ask(request("a", "b"))

    assert [(status.code, status.remaining) for status in refused.statuses] == [(OVER, 0), (OK, 8)]


@pytest.mark.parametrize("domain", ["d", "unknown"])
def test_what_matches_nothing_is_let_through_and_left_blank(domain: str) -> None:
    verdict = Limiter(configuration(k=limit(0))).ask(request("other", domain=domain))

    assert verdict == Verdict(OK, (Status(hits=1),))


def test_an_unlimited_descriptor_is_not_counted() -> None:
    limiter = Limiter(configuration(k=limit(0, unlimited=True)))

    assert limiter.ask(request("k")) == Verdict(OK, (Status(remaining=UINT32_MAX, hits=1),))
    assert len(limiter.windows) == 0


def test_shadow_mode_counts_and_never_refuses() -> None:
    limiter = Limiter(configuration(k=limit(1, shadow_mode=True)))
    limiter.ask(request("k"))

    (status,) = limiter.ask(request("k")).statuses

    assert (status.code, status.remaining) == (OK, 0)


def test_quota_limits_refuse_only_when_all_of_them_are_over() -> None:
    limiter = Limiter(configuration(a=limit(1, quota_mode=True), b=limit(2, quota_mode=True), free=None))

    assert limiter.codes("a", "b", "free") == (OK, [OK, OK, OK])
    assert limiter.codes("a", "b", "free") == (OK, [OVER, OK, OK])
    assert limiter.codes("a", "b", "free") == (OVER, [OVER, OVER, OK])


def test_a_limit_outside_quota_mode_refuses_whatever_the_quota_says() -> None:
    limiter = Limiter(configuration(a=limit(9, quota_mode=True), b=limit(0)))

    assert limiter.codes("a", "b") == (OVER, [OK, OVER])


def test_a_replaced_limit_does_not_count_in_this_request() -> None:
    general = limit(0, name="general")
    limiter = Limiter(configuration(a=general, b=limit(5, replaces=frozenset(["general"]))))

    assert limiter.codes("a", "b") == (OK, [OK, OK])
    assert limiter.codes("a") == (OVER, [OVER])


def test_limits_that_replace_each_other_are_both_left_out() -> None:
    one, two = limit(0, name="one", replaces=frozenset(["two"])), limit(0, name="two", replaces=frozenset(["one"]))

    assert Limiter(configuration(a=one, b=two)).codes("a", "b") == (OK, [OK, OK])


def test_an_override_takes_the_place_of_the_configured_limit_in_a_known_domain_only() -> None:
    limiter = Limiter(configuration(k=limit(0)))
    own = Descriptor(entries=(Entry("k", "v"),), limit=limit(7))

    known = limiter.ask(RateLimitRequest(domain="d", descriptors=(own,)))
    unknown = limiter.ask(RateLimitRequest(domain="x", descriptors=(own,)))

    assert (known.code, known.statuses[0].limit) == (OK, limit(7))
    assert unknown.statuses[0].limit is None


def test_hits_of_zero_ask_without_counting() -> None:
    limiter = Limiter(configuration(k=limit(5)))
    ask = Descriptor(entries=(Entry("k", "v"),), hits_addend=0)

    for _ in range(9):
        (status,) = limiter.ask(RateLimitRequest(domain="d", descriptors=(ask,))).statuses

    assert status.remaining == 5


@pytest.mark.parametrize(
    ("faulty", "message"),
    [
        (request("k", domain=""), "rate limit domain must not be empty"),
        (request(), "rate limit descriptor list must not be empty"),
        (
            request(*"k" * (MAX_DESCRIPTORS + 1)),
            "rate limit descriptor list must not hold more than 256 descriptors",
        ),
        (
            RateLimitRequest(domain="d", descriptors=(Descriptor(entries=(Entry("k", "v"),) * (MAX_ENTRIES + 1)),)),
            "rate limit descriptor must not hold more than 64 entries",
        ),
        (request(*"k" * MAX_DESCRIPTORS), None),
    ],
    ids=["no_domain", "no_descriptors", "too_many_descriptors", "too_many_entries", "just_right"],
)
def test_a_request_that_means_nothing_is_named(faulty: RateLimitRequest, message: str | None) -> None:
    assert fault(faulty) == message
