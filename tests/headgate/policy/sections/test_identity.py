"""Who may be asking: the sources of a policy, and what is said of wrong ones."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from headgate.policy.model import AnonymousIdentity, ApiKeyIdentity, JwtIdentity, MtlsIdentity, Policy

Accepted = Callable[[str, str], Policy]
Refused = Callable[[str, str], list[str]]

SOURCE = "  - api_key: {header: authorization}"


def test_sources_are_read_in_the_order_they_are_tried(accepted: Accepted) -> None:
    policy = accepted(
        SOURCE,
        """\
  - jwt: {payload_header: x-jwt-payload, tenant_claim: org, default_tier: gold}
  - api_key: {header: x-api-key}
  - mtls: {spiffe: "spiffe://mesh/ns/{tenant}/*"}
  - anonymous: {tenant: acme}""",
    )

    assert policy.identity == (
        JwtIdentity(payload_header="x-jwt-payload", tenant_claim="org", default_tier="gold"),
        ApiKeyIdentity(header="x-api-key"),
        MtlsIdentity(spiffe="spiffe://mesh/ns/{tenant}/*"),
        AnonymousIdentity(tenant="acme"),
    )


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        (
            "  - {}",
            ["policy.yaml:3 identity[0]: has to name exactly one of jwt, api_key, mtls, anonymous"],
        ),
        (
            "  - {jwt: {payload_header: x, tenant_claim: org}, anonymous: {tenant: acme}}",
            ["policy.yaml:3 identity[0]: has to name exactly one of jwt, api_key, mtls, anonymous"],
        ),
        (
            "  - key: {header: authorization}",
            ["policy.yaml:3 identity[0].key: unknown key; did you mean 'api_key'?"],
        ),
        (
            "  - api_key: {}",
            ["policy.yaml:3 identity[0].api_key: 'header' is missing"],
        ),
        (
            "  - api_key: {header: Authorization}",
            ["policy.yaml:3 identity[0].api_key.header: has to be a lower-case header name, not 'Authorization'"],
        ),
        (
            "  - jwt: {payload_header: x-jwt-payload}",
            ["policy.yaml:3 identity[0].jwt: 'tenant_claim' is missing"],
        ),
        (
            "  - jwt: {payload_header: x-jwt-payload, tenant_claim: org, default_tier: silver}",
            ["policy.yaml:3 identity[0].jwt.default_tier: no tier named 'silver'"],
        ),
        (
            "  - mtls: {}",
            ["policy.yaml:3 identity[0].mtls: 'spiffe' is missing"],
        ),
        (
            "  - mtls: {spiffe: spiffe://mesh/ns/acme}",
            ["policy.yaml:3 identity[0].mtls.spiffe: has to start with spiffe:// and hold {tenant} once"],
        ),
        (
            "  - mtls: {spiffe: 'https://mesh/{tenant}'}",
            ["policy.yaml:3 identity[0].mtls.spiffe: has to start with spiffe:// and hold {tenant} once"],
        ),
        (
            "  - anonymous: {tenant: nobody}",
            ["policy.yaml:3 identity[0].anonymous.tenant: no tenant named 'nobody'"],
        ),
        (
            "  - anonymous: {tenant: acme}\n  - api_key: {header: authorization}",
            ["policy.yaml:3 identity[0]: 'anonymous' takes every request; it has to be the last"],
        ),
        (
            "  []",
            ["policy.yaml:2 identity: names no way to tell who is asking"],
        ),
        (
            "  api_key: {header: authorization}",
            ["policy.yaml:2 identity: has to be a list, not a mapping"],
        ),
        (
            "  - authorization",
            ["policy.yaml:3 identity[0]: has to be a mapping, not 'authorization'"],
        ),
    ],
)
def test_a_wrong_source_is_named(source: str, expected: list[str], refused: Refused) -> None:
    assert refused(SOURCE, source) == expected
