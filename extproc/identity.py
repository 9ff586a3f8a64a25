"""Who is asking: the first source of the policy that finds a credential decides.

A wrong credential is refused and never falls through to a weaker source. Verifies no signature: a JWT payload and a
client certificate arrive in headers that only Envoy can set (docs/identity.md).
"""

from __future__ import annotations

import base64
import binascii
import functools
import hashlib
import re

import msgspec

from extproc.headers import Headers
from headgate.policy.load import NAME
from headgate.policy.model import (
    AnonymousIdentity,
    ApiKeyIdentity,
    IdentitySource,
    JwtIdentity,
    MtlsIdentity,
    Policy,
    Tenant,
    Tier,
)

_CERTIFICATE_FIELD = re.compile(r'\s*([A-Za-z]+)=("(?:[^"\\]|\\.)*"|[^;,"]*)([;,]|$)')
_MAX_CLAIMS_CHARACTERS = 32 * 1024


class Identity(msgspec.Struct, frozen=True):
    """A tenant and the tier it bought."""

    tenant: Tenant
    tier: Tier


class Unidentified(msgspec.Struct, frozen=True):
    """Why nobody could be named: `missing_credential`, `invalid_credential` or `unknown_tenant`."""

    reason: str
    message: str


def identify(policy: Policy, headers: Headers) -> Identity | Unidentified:
    """Name the tenant of a request, or say why it has none."""
    for source in policy.identity:
        found = _ask(source, policy, headers)
        if found is not None:
            return found
    return Unidentified("missing_credential", "No credential was sent. Send an API key as 'Authorization: Bearer KEY'.")


def _ask(source: IdentitySource, policy: Policy, headers: Headers) -> Identity | Unidentified | None:
    match source:
        case JwtIdentity():
            return _by_claim(source, policy, headers)
        case ApiKeyIdentity():
            return _by_key(source, policy, headers)
        case MtlsIdentity():
            return _by_certificate(source, policy, headers)
        case AnonymousIdentity():
            return _named(policy, source.tenant, None)


def _by_claim(source: JwtIdentity, policy: Policy, headers: Headers) -> Identity | Unidentified | None:
    payload = headers.get(source.payload_header)
    if not payload:
        return None
    claims = _claims(payload)
    tenant = _claim(claims, source.tenant_claim)
    if tenant is None:
        return Unidentified("invalid_credential", f"The token has no usable claim '{source.tenant_claim}'.")
    return _named(policy, tenant, source.default_tier)


def _claims(payload: str) -> object:
    if len(payload) > _MAX_CLAIMS_CHARACTERS:
        return None
    try:
        padded = payload.rstrip("=") + "=" * (-len(payload.rstrip("=")) % 4)
        return msgspec.json.decode(base64.b64decode(padded, altchars=b"-_", validate=True))
    except (binascii.Error, ValueError, RecursionError):
        return None


def _claim(claims: object, name: str) -> str | None:
    """A claim by its name, or by a dotted path into nested claims."""
    if isinstance(claims, dict) and isinstance(claims.get(name), str):
        return str(claims[name])
    value = claims
    for part in name.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return value if isinstance(value, str) else None


def _by_key(source: ApiKeyIdentity, policy: Policy, headers: Headers) -> Identity | Unidentified | None:
    value = headers.get(source.header)
    if source.header == "authorization":
        scheme, _, value = value.partition(" ")
        if scheme.lower() != "bearer":
            return None
    if not value:
        return None
    # Only digests are compared, by hash look-up: how long that takes tells nothing of any key.
    tenant = policy.tenants_by_key.get(hashlib.sha256(value.strip().encode()).hexdigest())
    if tenant is None:
        return Unidentified("invalid_credential", "The API key is not known.")
    return _named(policy, tenant, None)


def _by_certificate(source: MtlsIdentity, policy: Policy, headers: Headers) -> Identity | Unidentified | None:
    certificate = headers.get(source.header)
    if not certificate:
        return None
    uris = _uris_of_nearest_peer(certificate)
    if uris is None:
        return Unidentified("invalid_credential", "The forwarded client certificate cannot be read.")
    pattern = _spiffe_pattern(source.spiffe)
    for uri in uris:
        match = pattern.fullmatch(uri)
        if match is not None:
            return _named(policy, match["tenant"], source.default_tier)
    return None


@functools.lru_cache(maxsize=64)
def _spiffe_pattern(spiffe: str) -> re.Pattern[str]:
    pattern = re.escape(spiffe).replace(r"\{tenant\}", "(?P<tenant>[^/]+)")
    if pattern.endswith(r"\*"):
        pattern = pattern[:-2] + ".+"
    return re.compile(pattern.replace(r"\*", "[^/]+"))


def _uris_of_nearest_peer(certificate: str) -> list[str] | None:
    """The URI fields of the last element, which is the one Envoy wrote itself (its docs on XFCC).

    None when any part cannot be read: elements before the last may be the client's own, and an open quote
    or a stray character there must not hide what Envoy appended.
    """
    uris: list[str] = []
    position = 0
    while position < len(certificate):
        match = _CERTIFICATE_FIELD.match(certificate, position)
        if match is None:
            return None
        key, value, separator = match.groups()
        if key.lower() == "uri":
            uris.append(value.strip('"'))
        position = match.end()
        if separator == "," and position < len(certificate):
            uris.clear()
    return uris


def _named(policy: Policy, name: str, default_tier: str | None) -> Identity | Unidentified:
    tenant = policy.tenants.get(name)
    if tenant is None and default_tier is not None and re.fullmatch(NAME, name):
        tenant = Tenant(name=name, tier=default_tier)
    if tenant is None:
        return Unidentified("unknown_tenant", "The credential is valid, but its tenant is not known here.")
    return Identity(tenant, policy.tiers[tenant.tier])
