"""The configuration in force: the policy's tenant domain next to the domains of rate limit files.

A reload swaps the whole value between two requests; counters know nothing of it and go on.
"""

from __future__ import annotations

from types import MappingProxyType

from headgate.policy.model import Policy
from ratelimit.matching import Configuration
from ratelimit.tenants import TENANT_DOMAIN, tenant_domain


class CurrentConfiguration:
    """Holds one immutable configuration; call it to read it."""

    def __init__(self, policy: Policy, files: Configuration | None = None) -> None:
        """`files` must not define the domain `headgate`; `ratelimit.config` refuses files that do."""
        self._tenants = tenant_domain(policy)
        self._files = files or Configuration()
        self._current = self._merged()

    def __call__(self) -> Configuration:
        return self._current

    def adopt_policy(self, policy: Policy) -> None:
        """Take the tenants' limits from this policy from now on."""
        self._tenants = tenant_domain(policy)
        self._current = self._merged()

    def adopt_files(self, files: Configuration) -> None:
        """Take all other domains from these files from now on."""
        self._files = files
        self._current = self._merged()

    def _merged(self) -> Configuration:
        return Configuration(MappingProxyType({**self._files.domains, TENANT_DOMAIN: self._tenants}))
