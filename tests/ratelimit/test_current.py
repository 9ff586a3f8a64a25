from dataclasses import replace
from pathlib import Path

import headgate.policy
from headgate.policy.load import load_policy
from headgate.policy.model import Policy
from ratelimit.config import load_configuration
from ratelimit.current import CurrentConfiguration
from ratelimit.limits import Entry

POLICY = load_policy(Path(headgate.policy.__file__).with_name("default.yaml").read_bytes(), "default.yaml")
FILES = load_configuration([("a.yaml", b"domain: d")])


def policy_with(requests_per_minute: int) -> Policy:
    acme = POLICY.tenants["acme"]
    limits = replace(acme.limits, requests_per_minute=requests_per_minute)
    return replace(POLICY, tenants={"acme": replace(acme, limits=limits)})


def limit_of_acme(current: CurrentConfiguration) -> int | None:
    match = current.whole.domains["headgate"].match([Entry("tenant", "acme"), Entry("limit", "requests")])
    return match.limit.requests_per_unit if match else None


def test_the_tenant_domain_stands_next_to_those_of_the_files() -> None:
    assert set(CurrentConfiguration(POLICY).whole.domains) == {"headgate"}
    assert set(CurrentConfiguration(POLICY, FILES).whole.domains) == {"headgate", "d"}


def test_a_new_policy_changes_the_tenants_and_leaves_the_files() -> None:
    current = CurrentConfiguration(POLICY, FILES)
    before = current.whole

    current.adopt_policy(policy_with(requests_per_minute=7))

    assert limit_of_acme(current) == 7
    assert current.whole.domains["d"] is before.domains["d"]


def test_new_files_replace_the_old_ones_and_leave_the_tenants() -> None:
    current = CurrentConfiguration(POLICY, FILES)

    current.adopt_files(load_configuration([("b.yaml", b"domain: e")]))

    assert set(current.whole.domains) == {"headgate", "e"}
    assert limit_of_acme(current) == 600


def test_a_configuration_once_read_does_not_change() -> None:
    current = CurrentConfiguration(POLICY)
    read = current.whole

    current.adopt_policy(policy_with(requests_per_minute=7))

    assert read is not current.whole
    assert read.domains["headgate"].match([Entry("tenant", "globex"), Entry("limit", "requests")]) is not None


def test_until_expected_files_are_read_only_the_tenants_limits_are_known() -> None:
    current = CurrentConfiguration(POLICY, None)

    assert current("headgate") is not None
    assert current("d") is None
    assert not current.has_files

    current.adopt_files(FILES)

    assert current("d") is current.whole
    assert current.has_files
