"""The section `identity`: by which credentials Headgate tells who is asking, in the order they are tried."""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping

from headgate.policy.model import AnonymousIdentity, ApiKeyIdentity, IdentitySource, JwtIdentity, MtlsIdentity
from headgate.policy.node import Node

Names = Container[str] | None
_HEADER = r"[a-z0-9][a-z0-9-]*"


def read_identity(node: Node, *, tenants: Names, tiers: Names) -> Iterator[IdentitySource]:
    """The sources that can be used."""
    elements = node.elements(empty="names no way to tell who is asking")
    for index, element in enumerate(elements):
        source = _source(element, tenants, tiers)
        if isinstance(source, AnonymousIdentity) and index + 1 < len(elements):
            element.report("'anonymous' takes every request; it has to be the last")
        if source is not None:
            yield source


def _source(node: Node, tenants: Names, tiers: Names) -> IdentitySource | None:
    known = len(node.problems)
    kinds = node.fields("jwt", "api_key", "mtls", "anonymous")
    if len(kinds) != 1:
        if len(node.problems) == known:
            node.report("has to name exactly one of jwt, api_key, mtls, anonymous")
        return None
    [(kind, source)] = kinds.items()
    match kind:
        case "jwt":
            return _jwt(source, tiers)
        case "api_key":
            fields = source.fields(required=("header",))
            return ApiKeyIdentity(header=_header(fields.get("header")))
        case "mtls":
            return _mtls(source, tiers)
        case _:
            tenant = source.fields(required=("tenant",)).get("tenant")
            return AnonymousIdentity(tenant=tenant.reference("tenant", tenants) if tenant else "")


def _jwt(node: Node, tiers: Names) -> JwtIdentity:
    fields = node.fields("default_tier", required=("payload_header", "tenant_claim"))
    claim = fields.get("tenant_claim")
    return JwtIdentity(
        payload_header=_header(fields.get("payload_header")),
        tenant_claim=claim.text() if claim else "",
        default_tier=_default_tier(fields, tiers),
    )


def _mtls(node: Node, tiers: Names) -> MtlsIdentity:
    fields = node.fields("default_tier", required=("spiffe",))
    pattern = fields["spiffe"].text() if "spiffe" in fields else ""
    if pattern and (not pattern.startswith("spiffe://") or pattern.count("{tenant}") != 1):
        fields["spiffe"].report("has to start with spiffe:// and hold {tenant} once")
    return MtlsIdentity(spiffe=pattern, default_tier=_default_tier(fields, tiers))


def _default_tier(fields: Mapping[str, Node], tiers: Names) -> str | None:
    node = fields.get("default_tier")
    return node.reference("tier", tiers) if node else None


def _header(node: Node | None) -> str:
    return node.text(_HEADER, "a lower-case header name") if node else ""
