"""How full the clusters are, from this sidecar's own ledger: what is in flight against what they hold."""

from __future__ import annotations

from collections.abc import Callable

from extproc.queue import FairQueue
from headgate.policy.model import Policy
from headgate.store import Scope, Store


class ClusterSignals:
    """Answers at once from what is known; `policy` yields the one in force."""

    def __init__(self, policy: Callable[[], Policy], store: Store, queue: FairQueue) -> None:
        self._policy = policy
        self._store = store
        self._queue = queue

    def saturation(self, cluster: str) -> float:
        """0.0 idle .. 1.0 full: the fuller of requests and tokens. A cluster without limits is never full."""
        known = self._policy().clusters.get(cluster)
        if known is None:
            return 0.0
        usage = self._store.usage(cluster)
        return min(
            1.0, max(_share(usage.requests, known.capacity.requests), _share(usage.tokens, known.capacity.tokens))
        )

    def queue_depth(self, cluster: str) -> int:
        """Requests waiting here for the cluster."""
        return self._queue.depth(cluster)

    def in_flight(self, scope: Scope, name: str) -> int:
        """Leases of a tenant, tier or cluster."""
        return self._store.in_flight(scope, name)


def _share(used: int, limit: int | None) -> float:
    if limit is None:
        return 0.0
    return used / limit if limit else 1.0
