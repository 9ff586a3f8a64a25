from pathlib import Path

import headgate.policy
from headgate.policy.load import load_policy
from headgate.policy.model import OnStoreFailure
from ratelimit.limits import Entry, Limit, Unit
from ratelimit.matching import Domain
from ratelimit.tenants import tenant_domain

DEFAULT = Path(headgate.policy.__file__).with_name("default.yaml")


def domain_of_the_default_policy() -> Domain:
    return tenant_domain(load_policy(DEFAULT.read_bytes(), "default.yaml"))


def budget(tenant: str, limit: str) -> Limit | None:
    match = domain_of_the_default_policy().match([Entry("tenant", tenant), Entry("limit", limit)])
    return match.limit if match else None


def per_minute(amount: int, name: str) -> Limit:
    return Limit(requests_per_unit=amount, unit=Unit.MINUTE, name=name, on_store_failure=OnStoreFailure.CLOSED)


def in_flight(*pairs: tuple[str, str]) -> int | None:
    entries = [Entry(key, value) for key, value in (*pairs, ("limit", "concurrency"), ("request_id", "r1"))]
    match = domain_of_the_default_policy().match(entries)
    assert match is None or match.lease_id == "r1"
    return match.limit.requests_per_unit if match else None


def test_a_tenants_limits_are_two_budgets_per_minute_with_the_policys_word_on_a_missing_store() -> None:
    assert budget("acme", "requests") == per_minute(600, "requests_per_minute")
    assert budget("acme", "tokens") == per_minute(2_000_000, "tokens_per_minute")


def test_what_a_tenant_and_a_tier_may_have_in_flight_is_a_concurrency_limit() -> None:
    policy = load_policy(DEFAULT.read_bytes(), "default.yaml")
    acme = policy.tenants["acme"]

    assert in_flight(("tier", "premium")) == policy.tiers["premium"].tier_concurrency
    own, of_tier = acme.limits.concurrency, policy.tiers[acme.tier].tenant_concurrency
    assert in_flight(("tenant", "acme")) == min(limit for limit in (own, of_tier) if limit is not None)
    assert in_flight(("tier", "unknown")) is None


def test_a_budget_the_policy_does_not_name_is_not_limited() -> None:
    assert budget("public", "requests") is not None
    assert budget("public", "tokens") is None
    assert budget("hobby", "requests") is None


def test_a_tenant_the_policy_does_not_know_is_not_limited_here() -> None:
    assert budget("stranger", "requests") is None


def test_the_clients_protocol_is_information_and_no_limit() -> None:
    assert domain_of_the_default_policy().match([Entry("protocol", "openai")]) is None


def test_a_refused_request_costs_its_tenant_nothing() -> None:
    assert domain_of_the_default_policy().all_or_nothing
