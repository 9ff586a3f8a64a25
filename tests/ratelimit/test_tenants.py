from pathlib import Path

import headgate.policy
from headgate.policy.load import load_policy
from ratelimit.limits import Entry, Limit, Unit
from ratelimit.matching import Domain
from ratelimit.tenants import tenant_domain

DEFAULT = Path(headgate.policy.__file__).with_name("default.yaml")


def domain_of_the_default_policy() -> Domain:
    return tenant_domain(load_policy(DEFAULT.read_bytes(), "default.yaml"))


def budget(tenant: str, limit: str) -> Limit | None:
    match = domain_of_the_default_policy().match([Entry("tenant", tenant), Entry("limit", limit)])
    return match.limit if match else None


def test_a_tenants_limits_are_two_budgets_per_minute() -> None:
    assert budget("acme", "requests") == Limit(requests_per_unit=600, unit=Unit.MINUTE, name="requests_per_minute")
    assert budget("acme", "tokens") == Limit(requests_per_unit=2_000_000, unit=Unit.MINUTE, name="tokens_per_minute")


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
