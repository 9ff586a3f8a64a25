"""Who is asking: every source, every wrong credential, and no way round the source that found one."""

from __future__ import annotations

import base64
import json
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from extproc.headers import Headers
from extproc.identity import Identity, Unidentified, identify
from headgate.policy.model import AnonymousIdentity, ApiKeyIdentity, JwtIdentity, MtlsIdentity, Policy

ACME_KEY = "Bearer acme-key"
ENVOY_WROTE = 'By=spiffe://mesh/gw;Hash=ab12;Subject="CN=web,O=acme";URI=spiffe://mesh/ns/acme/sa/web;DNS=web.acme'


def who(policy: Policy, **headers: str) -> str:
    """The tenant of a request with these headers (`_` for `-`), or the reason it has none."""
    found = identify(policy, Headers((name.replace("_", "-"), value) for name, value in headers.items()))
    match found:
        case Identity(tenant, tier):
            assert tier.name == tenant.tier
            return tenant.name
        case Unidentified(reason, message):
            assert message.endswith(".")
            return reason


def payload(claims: object) -> str:
    """What jwt_authn forwards: base64url without padding."""
    return base64.urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip("=")


def only(policy: Policy, *sources: JwtIdentity | ApiKeyIdentity | MtlsIdentity | AnonymousIdentity) -> Policy:
    return replace(policy, identity=sources)


# keys


@pytest.mark.parametrize("value", [ACME_KEY, "bearer acme-key", "BEARER acme-key", "Bearer  acme-key "])
def test_a_known_key_names_its_tenant(policy: Policy, value: str) -> None:
    assert who(policy, authorization=value) == "acme"


@pytest.mark.parametrize(
    "value",
    [
        "Bearer nope",
        "Bearer ACME-KEY",
        "Bearer acme-key2",
        "Bearer acme-key,Bearer globex-key",
        "Bearer " + "k" * 60_000,
        "Bearer schl\u00fcssel",
        "Bearer 5d1dc17f",
    ],
)
def test_a_wrong_key_is_refused_and_never_falls_through_to_anonymous(policy: Policy, value: str) -> None:
    assert who(policy, authorization=value) == "invalid_credential"


def test_the_digest_of_a_key_is_not_the_key(policy: Policy) -> None:
    digest = policy.tenants["acme"].api_key_sha256[0]

    assert who(policy, authorization=f"Bearer {digest}") == "invalid_credential"


def test_a_wrong_key_beats_a_good_certificate(policy: Policy) -> None:
    assert who(policy, authorization="Bearer nope", x_forwarded_client_cert=ENVOY_WROTE) == "invalid_credential"


@pytest.mark.parametrize("value", ["", "Bearer", "Bearer ", "Basic YWNtZTprZXk=", "acme-key"])
def test_an_authorization_without_a_key_is_no_credential(policy: Policy, value: str) -> None:
    assert who(policy, authorization=value) == "public"


def test_a_key_header_of_its_own_holds_the_bare_key(policy: Policy) -> None:
    keys = only(policy, ApiKeyIdentity(header="x-api-key"))

    assert who(keys, x_api_key="acme-key") == "acme"
    assert who(keys, x_api_key="Bearer acme-key") == "invalid_credential"
    assert who(keys, authorization=ACME_KEY) == "missing_credential"


# JWT payloads


@pytest.mark.parametrize("padding", ["", "=", "=="])
def test_a_jwt_payload_is_read_with_and_without_its_padding(policy: Policy, padding: str) -> None:
    assert who(policy, x_jwt_payload=payload({"org": "acme"}) + padding) == "acme"


def test_a_jwt_payload_may_use_both_characters_of_base64url(policy: Policy) -> None:
    encoded = base64.urlsafe_b64encode(b'{"org":"acme","note":"?>?>~~~~??>>??>"}').decode()

    assert {"_", "-"} <= set(encoded)
    assert who(policy, x_jwt_payload=encoded) == "acme"


@pytest.mark.parametrize(
    ("claim", "claims"),
    [
        ("org", {"org": "acme"}),
        ("https://acme.example/org", {"https://acme.example/org": "acme"}),
        ("realm.org", {"realm": {"org": "acme"}}),
        ("realm.org", {"realm.org": "acme", "realm": {"org": "globex"}}),
        ("a.b.c", {"a": {"b": {"c": "acme"}}}),
    ],
)
def test_a_claim_is_found_by_name_or_by_dotted_path(policy: Policy, claim: str, claims: object) -> None:
    tokens = only(policy, JwtIdentity(payload_header="x-jwt-payload", tenant_claim=claim))

    assert who(tokens, x_jwt_payload=payload(claims)) == "acme"


@pytest.mark.parametrize(
    "value",
    [
        payload({"sub": "acme"}),
        payload({"org": None}),
        payload({"org": 7}),
        payload({"org": ["acme"]}),
        payload({"org": {"name": "acme"}}),
        payload(["acme"]),
        payload("acme"),
        payload(None),
        "acme",
        "%%%",
        "a",
        "=",
        "====",
        "e30.e30",
        payload({"org": "acme"}) + "," + payload({"org": "globex"}),
        base64.b64encode(b"\xff\xfe").decode(),
        base64.b64encode(b'{"org":"acme"').decode(),
        base64.b64encode(b"[" * 20_000).decode(),
        payload({"org": "acme", "pad": "x" * 40_000}),
        "\u00fc" * 8,
    ],
)
def test_a_payload_without_a_usable_claim_is_refused(policy: Policy, value: str) -> None:
    assert who(policy, x_jwt_payload=value, authorization=ACME_KEY) == "invalid_credential"


def test_the_first_source_that_finds_a_credential_decides(policy: Policy) -> None:
    assert who(policy, x_jwt_payload=payload({"org": "globex"}), authorization=ACME_KEY) == "globex"
    assert who(policy, authorization=ACME_KEY, x_forwarded_client_cert=ENVOY_WROTE.replace("acme", "globex")) == "acme"


def test_a_verified_token_of_an_unknown_tenant_is_refused(policy: Policy) -> None:
    assert who(policy, x_jwt_payload=payload({"org": "initech"})) == "unknown_tenant"


def test_a_default_tier_takes_in_unknown_tenants_by_their_own_name(policy: Policy) -> None:
    source = JwtIdentity(payload_header="x-jwt-payload", tenant_claim="org", default_tier="best_effort")
    found = identify(only(policy, source), Headers([("x-jwt-payload", payload({"org": "initech"}))]))

    assert isinstance(found, Identity)
    assert (found.tenant.name, found.tier.name) == ("initech", "best_effort")


@pytest.mark.parametrize("name", ["", " ", "a b", "-a", "a\n", "a,b", "\u00e4", "x" * 129, "{tenant}"])
def test_a_default_tier_takes_in_no_name_that_cannot_travel_in_a_header(policy: Policy, name: str) -> None:
    source = JwtIdentity(payload_header="x-jwt-payload", tenant_claim="org", default_tier="best_effort")

    assert who(only(policy, source), x_jwt_payload=payload({"org": name})) == "unknown_tenant"


# certificates


@pytest.mark.parametrize(
    "certificate",
    [
        ENVOY_WROTE,
        "URI=spiffe://mesh/ns/acme/sa/web",
        "uri=spiffe://mesh/ns/acme/sa/web;",
        'URI="spiffe://mesh/ns/acme/sa/web"',
        "Hash=1;URI=https://other.example;URI=spiffe://mesh/ns/acme/sa/web",
        "URI=spiffe://mesh/ns/acme/a;URI=spiffe://mesh/ns/globex/b",
        r'Subject="CN=\"x\";URI=spiffe://mesh/ns/globex/x,";URI=spiffe://mesh/ns/acme/sa/web',
        "URI=spiffe://mesh/ns/globex/a,URI=spiffe://mesh/ns/acme/b",
        "URI=spiffe://mesh/ns/globex/a, By=x;URI=spiffe://mesh/ns/acme/b",
    ],
)
def test_the_uri_of_the_element_envoy_wrote_last_names_the_tenant(policy: Policy, certificate: str) -> None:
    assert who(policy, x_forwarded_client_cert=certificate) == "acme"


@pytest.mark.parametrize(
    "certificate",
    [
        "URI=",
        "Hash=ab12",
        "URI=spiffe://other/ns/acme/sa/web",
        "URI=spiffe://mesh/ns/acme",
        "URI=spiffe://mesh/ns/acme/",
        "URI=spiffe://mesh/ns//web",
        "URI=xspiffe://mesh/ns/acme/web",
        "URI=SPIFFE://MESH/NS/acme/web",
        'Subject="URI=spiffe://mesh/ns/acme/web"',
        'Subject="a,URI=spiffe://mesh/ns/acme/web";Hash=1',
        "URI=spiffe://mesh/ns/acme/web,Hash=ab12",
        "XURI=spiffe://mesh/ns/acme/web",
    ],
)
def test_a_certificate_without_a_spiffe_id_of_the_mesh_names_nobody(policy: Policy, certificate: str) -> None:
    assert who(policy, x_forwarded_client_cert=certificate) == "public"


@pytest.mark.parametrize(
    "sent_by_client",
    [
        "URI=spiffe://mesh/ns/acme/web",
        "URI=spiffe://mesh/ns/acme/web;!!",
        "URI=spiffe://mesh/ns/acme/web;=",
        "URI=spiffe://mesh/ns/acme/web;;",
        'URI=spiffe://mesh/ns/acme/web;Subject="',
        'URI=spiffe://mesh/ns/acme/web;Subject="x\\',
        'URI=spiffe://mesh/ns/acme/web;Subject=a"b',
        'Subject=";URI=spiffe://mesh/ns/acme/web;DNS="',
        ",",
    ],
)
def test_what_a_client_puts_before_envoys_element_never_makes_it_another_tenant(
    policy: Policy, sent_by_client: str
) -> None:
    appended = ENVOY_WROTE.replace("acme", "globex")

    found = who(policy, x_forwarded_client_cert=f"{sent_by_client},{appended}")

    assert found in ("globex", "invalid_credential")


def test_a_subject_cannot_close_its_quote_early_and_add_a_uri(policy: Policy) -> None:
    subject = r'Subject="CN=\",URI=spiffe://mesh/ns/acme/web";URI=spiffe://mesh/ns/globex/web'

    assert who(policy, x_forwarded_client_cert=subject) == "globex"


@pytest.mark.parametrize(
    "certificate",
    [
        "garbage",
        "=",
        ";",
        'Subject="open',
        f'Subject="open,{ENVOY_WROTE}',
        f'Subject=a"b,{ENVOY_WROTE}',
        f"!,{ENVOY_WROTE}",
    ],
)
def test_an_unreadable_certificate_is_refused_and_does_not_fall_through(policy: Policy, certificate: str) -> None:
    assert who(policy, x_forwarded_client_cert=certificate) == "invalid_credential"


@settings(deadline=None)
@given(sent_by_client=st.text(st.sampled_from('URI=spiffe://mesh/ns/acme/w";,\\ "'), max_size=60))
def test_no_prefix_makes_a_request_acmes(policy: Policy, sent_by_client: str) -> None:
    appended = 'By=spiffe://mesh/gw;Hash=ab12;Subject="CN=web";URI=spiffe://mesh/ns/globex/sa/web'

    assert who(policy, x_forwarded_client_cert=f"{sent_by_client},{appended}") in ("globex", "invalid_credential")


def test_the_tenant_may_stand_anywhere_in_the_pattern(policy: Policy) -> None:
    mesh = only(policy, MtlsIdentity(spiffe="spiffe://*.mesh/ns/*/sa/{tenant}"))

    assert who(mesh, x_forwarded_client_cert="URI=spiffe://eu.mesh/ns/prod/sa/acme") == "acme"
    assert who(mesh, x_forwarded_client_cert="URI=spiffe://eu.mesh/ns/a/b/sa/acme") == "missing_credential"
    assert who(mesh, x_forwarded_client_cert="URI=spiffe://euxmesh/ns/prod/sa/acme") == "missing_credential"


# anonymous


def test_a_request_without_any_credential_is_the_anonymous_tenants(policy: Policy) -> None:
    assert who(policy) == "public"


def test_without_an_anonymous_tenant_a_credential_is_required(policy: Policy) -> None:
    assert who(only(policy, ApiKeyIdentity(header="authorization"))) == "missing_credential"


# anything


@settings(deadline=None)
@given(
    st.dictionaries(
        st.sampled_from(["authorization", "x_jwt_payload", "x_forwarded_client_cert"]), st.text(max_size=80), min_size=1
    )
)
def test_any_header_values_name_somebody_or_give_a_reason(policy: Policy, headers: dict[str, str]) -> None:
    reasons = {"missing_credential", "invalid_credential", "unknown_tenant"}

    assert who(policy, **headers) in reasons | {"public"}
