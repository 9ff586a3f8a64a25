"""The configuration in force: the policy's tenant domain next to the domains of rate limit files.

A reload swaps the whole value between two requests; counters know nothing of it and go on.
"""

from __future__ import annotations

from types import MappingProxyType

from headgate.policy.model import Policy
from ratelimit.matching import Configuration
from ratelimit.tenants import TENANT_DOMAIN, tenant_domain


class CurrentConfiguration:
    """Holds one immutable configuration; call it with a domain's name to read it.

    Args:
        files: what the files say; None while they are expected and none could be read.
    """

    def __init__(self, policy: Policy, files: Configuration | None = Configuration()) -> None:  # noqa: B008  (immutable)
        """`files` must not define the domain `headgate`; `ratelimit.config` refuses files that do."""
        self._tenants = tenant_domain(policy)
        self._files = files
        self._current = self._merged()

    def __call__(self, domain: str) -> Configuration | None:
        """What holds for a domain; None when it may be in files that could never be read."""
        return self._current if self._files is not None or domain == TENANT_DOMAIN else None

    @property
    def whole(self) -> Configuration:
        """All domains known."""
        return self._current

    @property
    def has_files(self) -> bool:
        """Whether the files, if any are expected, could be read at least once."""
        return self._files is not None

    def adopt_policy(self, policy: Policy) -> None:
        """Take the tenants' limits from this policy from now on."""
        self._tenants = tenant_domain(policy)
        self._current = self._merged()

    def adopt_files(self, files: Configuration) -> None:
        """Take all other domains from these files from now on."""
        self._files = files
        self._current = self._merged()

    def _merged(self) -> Configuration:
        domains = self._files.domains if self._files is not None else {}
        return Configuration(MappingProxyType({**domains, TENANT_DOMAIN: self._tenants}))
