"""The policy's tenant limits as the rate limit domain `headgate`, so that one file rules both services.

A tenant's budget is the descriptor [(tenant, NAME), (limit, requests | tokens)]. Envoy adds [(protocol, NAME)],
which has no limit: it says in which format a refusal is written. Knows no request and no counter.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import StrEnum

from headgate.policy.model import Policy, TenantLimits
from ratelimit.limits import Limit, Unit
from ratelimit.matching import ConfiguredDescriptor, Domain

TENANT_DOMAIN = "headgate"
TENANT_KEY = "tenant"
LIMIT_KEY = "limit"
PROTOCOL_KEY = "protocol"


class Budget(StrEnum):
    """What is counted per tenant and minute."""

    REQUESTS = "requests"
    TOKENS = "tokens"

    @property
    def reason(self) -> str:
        """The limit's name: the same in the policy, the answer, headers and metrics."""
        return f"{self}_per_minute"


def tenant_domain(policy: Policy) -> Domain:
    """Every tenant's limits; a tenant without limits of its own is not limited here.

    A request that one budget refuses costs none of the others: all or nothing.
    """
    descriptors = (
        ConfiguredDescriptor(key=TENANT_KEY, value=tenant.name, descriptors=tuple(_budgets(tenant.limits)))
        for tenant in policy.tenants.values()
    )
    return Domain(TENANT_DOMAIN, descriptors, all_or_nothing=True)


def _budgets(limits: TenantLimits) -> Iterator[ConfiguredDescriptor]:
    per_minute = {Budget.REQUESTS: limits.requests_per_minute, Budget.TOKENS: limits.tokens_per_minute}
    for budget, amount in per_minute.items():
        if amount is not None:
            limit = Limit(requests_per_unit=amount, unit=Unit.MINUTE, name=budget.reason)
            yield ConfiguredDescriptor(key=LIMIT_KEY, value=budget, limit=limit)
