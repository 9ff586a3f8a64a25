"""Who pays: tenants, their keys and limits, and what is said of wrong ones."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from headgate.policy.model import Policy, Tenant, TenantLimits

Accepted = Callable[[str, str], Policy]
Refused = Callable[[str, str], list[str]]

ACME = "  acme: {tier: gold}"
DIGEST = "0123456789abcdef" * 4


def test_a_tenant_has_a_tier_keys_a_weight_and_limits(accepted: Accepted) -> None:
    policy = accepted(
        ACME,
        f"""\
  acme:
    tier: gold
    weight: 3
    api_key_sha256: ["{DIGEST}"]
    limits: {{concurrency: 40, requests_per_minute: 600, tokens_per_minute: 2_000_000, cached_token_weight: 0.1}}""",
    )

    limits = TenantLimits(concurrency=40, requests_per_minute=600, tokens_per_minute=2_000_000, cached_token_weight=0.1)
    assert policy.tenants == {
        "acme": Tenant(name="acme", tier="gold", api_key_sha256=(DIGEST,), weight=3.0, limits=limits)
    }
    assert policy.tenants_by_key == {DIGEST: "acme"}


def test_a_tenant_that_names_only_its_tier_is_not_limited(accepted: Accepted) -> None:
    policy = accepted(ACME, "  acme: {tier: gold}")

    assert policy.tenants["acme"].limits == TenantLimits(
        concurrency=None, requests_per_minute=None, tokens_per_minute=None
    )


def test_a_limit_of_zero_is_a_limit(accepted: Accepted) -> None:
    policy = accepted(ACME, "  acme: {tier: gold, limits: {concurrency: 0}}")

    assert policy.tenants["acme"].limits.concurrency == 0


def test_a_policy_may_name_no_tenant(accepted: Accepted) -> None:
    assert accepted(ACME, "  {}").tenants == {}


def test_a_tenant_may_hold_several_keys_and_name_one_twice(accepted: Accepted) -> None:
    other = "f" * 64

    policy = accepted(ACME, f"  acme: {{tier: gold, api_key_sha256: ['{DIGEST}', '{other}', '{DIGEST}']}}")

    assert policy.tenants_by_key == {DIGEST: "acme", other: "acme"}


@pytest.mark.parametrize(
    ("tenants", "expected"),
    [
        ("  acme: {}", ["policy.yaml:5 tenants.acme: 'tier' is missing"]),
        ("  acme:", ["policy.yaml:5 tenants.acme: 'tier' is missing"]),
        ("  acme:\n    weight: 3", ["policy.yaml:5 tenants.acme: 'tier' is missing"]),
        ("  acme: gold", ["policy.yaml:5 tenants.acme: has to be a mapping, not 'gold'"]),
        ("  acme: {tier: glod}", ["policy.yaml:5 tenants.acme.tier: no tier named 'glod'"]),
        ("  acme: {tier: [gold]}", ["policy.yaml:5 tenants.acme.tier: has to be the name of a tier, not a list"]),
        (
            "  acme: {tier: gold, limit: {}}",
            ["policy.yaml:5 tenants.acme.limit: unknown key; did you mean 'limits'?"],
        ),
        (
            "  acme: {tier: gold, weight: 0}",
            ["policy.yaml:5 tenants.acme.weight: has to be at least 0.001, not '0'"],
        ),
        (
            "  acme: {tier: gold, weight: heavy}",
            ["policy.yaml:5 tenants.acme.weight: has to be a number, not 'heavy'"],
        ),
        (
            "  acme:\n    tier: gold\n    limits:\n      concurrency: many",
            ["policy.yaml:8 tenants.acme.limits.concurrency: has to be a whole number, not 'many'"],
        ),
        (
            "  acme: {tier: gold, limits: {requests_per_minute: 5_000_000_000}}",
            [
                (
                    "policy.yaml:5 tenants.acme.limits.requests_per_minute: has to be at most 4294967295, "
                    "not '5_000_000_000'"
                )
            ],
        ),
        (
            "  acme: {tier: gold, limits: {tokens_per_minute: -1}}",
            ["policy.yaml:5 tenants.acme.limits.tokens_per_minute: has to be at least 0, not '-1'"],
        ),
        (
            "  acme: {tier: gold, limits: {cached_token_weight: 1.5}}",
            ["policy.yaml:5 tenants.acme.limits.cached_token_weight: has to be at most 1, not '1.5'"],
        ),
        (
            "  acme: {tier: gold, api_key_sha256: secret}",
            ["policy.yaml:5 tenants.acme.api_key_sha256: has to be a list, not 'secret'"],
        ),
        (
            "  acme: {tier: gold, api_key_sha256: [secret]}",
            [
                (
                    "policy.yaml:5 tenants.acme.api_key_sha256[0]: has to be a sha256 in 64 lower-case hex digits, "
                    "not 'secret'"
                )
            ],
        ),
        (
            (
                f"  acme: {{tier: gold, api_key_sha256: ['{DIGEST}']}}\n"
                f"  globex: {{tier: gold, api_key_sha256: ['{DIGEST}']}}"
            ),
            ["policy.yaml:6 tenants.globex.api_key_sha256[0]: is also the key of tenant 'acme'"],
        ),
        (
            "  acme: {tier: gold}\n  acme: {tier: gold}",
            ["policy.yaml:6 tenants.acme: stands twice"],
        ),
        (
            "  ac me: {tier: gold}",
            [
                (
                    "policy.yaml:5 tenants.ac me: cannot be a name: up to 128 letters, digits and ._@:/-, "
                    "the first a letter or a digit"
                )
            ],
        ),
        (
            "  '': {tier: gold}",
            [
                (
                    "policy.yaml:5 tenants.: cannot be a name: up to 128 letters, digits and ._@:/-, "
                    "the first a letter or a digit"
                )
            ],
        ),
        ("  [acme]", ["policy.yaml:4 tenants: has to be a mapping, not a list"]),
    ],
)
def test_a_wrong_tenant_is_named(tenants: str, expected: list[str], refused: Refused) -> None:
    assert refused(ACME, tenants) == expected


def test_a_name_of_128_characters_is_accepted_and_one_of_129_is_not(accepted: Accepted, refused: Refused) -> None:
    longest = "a" * 128

    assert list(accepted(ACME, f"  {longest}: {{tier: gold}}").tenants) == [longest]
    [problem] = refused(ACME, f"  {longest}a: {{tier: gold}}")
    assert "cannot be a name: up to 128 letters" in problem
