"""The section `tenants`: who pays, the tier each bought, its keys and its own limits."""

from __future__ import annotations

from collections.abc import Container

from headgate.policy.model import Tenant, TenantLimits
from headgate.policy.node import Node, optional_integer

_SHA256 = r"[0-9a-f]{64}"
_UINT32 = 2**32 - 1


def read_tenant(name: str, node: Node, *, tiers: Container[str] | None, key_owners: dict[str, str]) -> Tenant:
    """One tenant; its keys are entered into `key_owners` (sha256 -> tenant), where no two tenants may share one."""
    fields = node.fields("api_key_sha256", "weight", "limits", required=("tier",))
    keys = fields["api_key_sha256"].elements() if "api_key_sha256" in fields else []
    return Tenant(
        name=name,
        tier=fields["tier"].reference("tier", tiers) if "tier" in fields else "",
        api_key_sha256=tuple(_key(name, key, key_owners) for key in keys),
        weight=fields["weight"].number(0.001, 1000) if "weight" in fields else 1.0,
        limits=_limits(fields["limits"]) if "limits" in fields else TenantLimits(),
    )


def _key(tenant: str, node: Node, key_owners: dict[str, str]) -> str:
    digest = node.text(_SHA256, "a sha256 in 64 lower-case hex digits")
    owner = key_owners.setdefault(digest, tenant) if digest else tenant
    if owner != tenant:
        node.report(f"is also the key of tenant '{owner}'")
    return digest


def _limits(node: Node) -> TenantLimits:
    fields = node.fields("concurrency", "requests_per_minute", "tokens_per_minute", "cached_token_weight")
    weight = fields.get("cached_token_weight")
    return TenantLimits(
        concurrency=optional_integer(fields, "concurrency"),
        requests_per_minute=optional_integer(fields, "requests_per_minute", maximum=_UINT32),
        tokens_per_minute=optional_integer(fields, "tokens_per_minute", maximum=_UINT32),
        cached_token_weight=weight.number(0, 1) if weight is not None else 1.0,
    )
