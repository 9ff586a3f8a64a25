"""Which tiers are being sent to cheaper clusters.

So that a tier does not change models at every request while a cluster is near its limit. Knows no clock, no policy.
"""

from __future__ import annotations

RETURN_BELOW = 0.8
"""A tier returns once the cluster's saturation is down to this share of what it was when it had no room."""


class Degradations:
    """The (tier, cluster) pairs that are degraded, and how full the cluster was."""

    def __init__(self) -> None:
        self._saturations: dict[tuple[str, str], float] = {}

    def __len__(self) -> int:
        return len(self._saturations)

    def begin(self, tier: str, cluster: str, saturation: float) -> None:
        """The cluster had no room for the tier. Of several such moments the emptiest counts."""
        pair = (tier, cluster)
        self._saturations[pair] = min(saturation, self._saturations.get(pair, saturation))

    def lasts(self, tier: str, cluster: str, saturation: float, *, is_line_empty: bool) -> bool:
        """Whether the tier goes on being degraded there; ends it if not.

        Args:
            is_line_empty: of a tier that would rather wait than be degraded, nobody waits for the cluster: then it is
                free to wait again, however full lesser tiers keep the cluster.
        """
        began = self._saturations.get((tier, cluster))
        if began is None:
            return False
        if saturation <= RETURN_BELOW * began or is_line_empty:
            del self._saturations[(tier, cluster)]
            return False
        return True
