"""The policy's limits as the rate limit domain `headgate`, so that one file rules both services.

A tenant's budget is the descriptor [(tenant, NAME), (limit, requests | tokens)]. How much may be in flight is
[(tenant | tier, NAME), (limit, concurrency), (request_id, ID)], for those who run this service without ext_proc. Envoy
adds [(protocol, NAME), (request_id, ID)], which has no limit: it says in which format a refusal is written, and by
which record of a finished request the tokens are settled.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import StrEnum

from headgate.policy.model import OnStoreFailure, Policy, Tenant
from ratelimit.limits import Algorithm, Limit, Unit
from ratelimit.matching import ConfiguredDescriptor, Domain, Origin

TENANT_DOMAIN = "headgate"
TENANT_KEY = "tenant"
LIMIT_KEY = "limit"
PROTOCOL_KEY = "protocol"
TIER_KEY = "tier"
REQUEST_ID_KEY = "request_id"
CONCURRENCY = "concurrency"

_LEASE_SECONDS = 600
_POLICY = Origin("the policy")


class Budget(StrEnum):
    """What is counted per tenant and minute."""

    REQUESTS = "requests"
    TOKENS = "tokens"

    @property
    def reason(self) -> str:
        """The limit's name: the same in the policy, the answer, headers and metrics."""
        return f"{self}_per_minute"


def tenant_domain(policy: Policy) -> Domain:
    """Every tenant's and tier's limits; a tenant without limits of its own has no budget here.

    A request that one budget refuses costs none of the others: all or nothing.
    """
    return Domain(TENANT_DOMAIN, [*_tenants(policy), *_tiers(policy)], all_or_nothing=True)


def _tenants(policy: Policy) -> Iterator[ConfiguredDescriptor]:
    for tenant in policy.tenants.values():
        tier = policy.tiers.get(tenant.tier)
        in_flight = [tenant.limits.concurrency, tier.tenant_concurrency if tier is not None else None]
        least = min((limit for limit in in_flight if limit is not None), default=None)
        below = [*_budgets(tenant, policy.on_store_failure), *_concurrency(least, policy.on_store_failure)]
        yield ConfiguredDescriptor(key=TENANT_KEY, value=tenant.name, origin=_POLICY, descriptors=tuple(below))


def _tiers(policy: Policy) -> Iterator[ConfiguredDescriptor]:
    for tier in policy.tiers.values():
        below = tuple(_concurrency(tier.tier_concurrency, policy.on_store_failure))
        yield ConfiguredDescriptor(key=TIER_KEY, value=tier.name, origin=_POLICY, descriptors=below)


def _budgets(tenant: Tenant, on_store_failure: OnStoreFailure) -> Iterator[ConfiguredDescriptor]:
    limits = tenant.limits
    per_minute = {Budget.REQUESTS: limits.requests_per_minute, Budget.TOKENS: limits.tokens_per_minute}
    for budget, amount in per_minute.items():
        if amount is not None:
            limit = Limit(
                requests_per_unit=amount, unit=Unit.MINUTE, name=budget.reason, on_store_failure=on_store_failure
            )
            yield ConfiguredDescriptor(key=LIMIT_KEY, value=budget, limit=limit, origin=_POLICY)


def _concurrency(amount: int | None, on_store_failure: OnStoreFailure) -> Iterator[ConfiguredDescriptor]:
    if amount is None:
        return
    limit = Limit(
        requests_per_unit=amount,
        algorithm=Algorithm.CONCURRENCY,
        counts_rejected=False,
        lease_seconds=_LEASE_SECONDS,
        name=CONCURRENCY,
        on_store_failure=on_store_failure,
    )
    leases = ConfiguredDescriptor(key=REQUEST_ID_KEY, limit=limit, origin=_POLICY)
    yield ConfiguredDescriptor(key=LIMIT_KEY, value=CONCURRENCY, origin=_POLICY, descriptors=(leases,))
