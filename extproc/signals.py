"""How full the clusters are: this sidecar's own ledger first, what the servers say of themselves second."""

from __future__ import annotations

from collections.abc import Callable

from extproc.capacity import CapacityTracker
from extproc.degradations import Degradations
from extproc.queue import FairQueue
from extproc.server_load import ServerLoad, ServerLoads
from headgate.policy.model import Cluster, Policy, Rung, Tier
from headgate.store import Scope, Store

__all__ = ["ClusterSignals", "ServerLoad", "ServerLoads"]

_DEGRADE = Rung.DEGRADE


def _nobody_knows(cluster: str) -> ServerLoad | None:
    del cluster
    return None


class ClusterSignals:
    """Answers at once from what is known.

    Args:
        policy: yields the one in force.
        capacity: what was learnt about clusters whose capacity is `auto`; nothing yet when left out.
    """

    def __init__(
        self,
        policy: Callable[[], Policy],
        store: Store,
        queue: FairQueue,
        servers: ServerLoads = _nobody_knows,
        capacity: CapacityTracker | None = None,
    ) -> None:
        self._policy = policy
        self._store = store
        self._queue = queue
        self._servers = servers
        self._capacity = capacity or CapacityTracker(policy)
        self._degradations = Degradations()

    def saturation(self, cluster: str) -> float:
        """0.0 idle .. 1.0 full: the fullest of requests, tokens and what its servers say.

        A cluster without limits is full only by their word. One of whose servers none takes requests is full.
        """
        known = self._policy().clusters.get(cluster)
        if known is None:
            return 0.0
        usage, load = self._store.usage(cluster), self._servers(cluster)
        saturation = _share(usage.requests, self._capacity.request_limit(known))
        if known.capacity.tokens is not None:
            saturation = max(saturation, _share(usage.tokens, known.capacity.tokens))
        if load is not None:
            saturation = max(saturation, load.saturation)
        return min(1.0, saturation)

    def queue_depth(self, cluster: str) -> int:
        """Requests waiting for the cluster, here and in its servers."""
        load = self._servers(cluster)
        return self._queue.depth(cluster) + (load.queue_depth if load else 0)

    def in_flight(self, scope: Scope, name: str) -> int:
        """Leases of a tenant, tier or cluster."""
        return self._store.in_flight(scope, name)

    def request_limit(self, cluster: Cluster) -> int | None:
        """The policy's (of the request's own policy), or what was learnt."""
        return self._capacity.request_limit(cluster)

    def is_unavailable(self, cluster: str) -> bool:
        """Whether none of its servers takes requests; False while that is not known for certain."""
        load = self._servers(cluster)
        return load is not None and load.is_unavailable

    def is_degraded(self, tier: Tier, cluster: str) -> bool:
        """Whether the tier is being sent to cheaper clusters instead."""
        if _DEGRADE in tier.on_overload and self.is_unavailable(cluster):
            return True
        if not self._degradations:
            return False
        is_free_to_wait = _waits_first(tier) and not self._queue.waits_for_cluster(cluster, tier.name)
        return self._degradations.lasts(tier.name, cluster, self.saturation(cluster), is_line_empty=is_free_to_wait)

    def begin_degrading(self, tier: Tier, cluster: str, scope: Scope) -> None:
        """The cluster had no room for a request of the tier.

        One too big for the tokens left says little about the next: its tier follows only while the cluster is full.
        """
        saturation = 1.0 if scope is Scope.CLUSTER_TOKENS else self.saturation(cluster)
        self._degradations.begin(tier.name, cluster, saturation)


def _waits_first(tier: Tier) -> bool:
    ladder = tier.on_overload
    return Rung.QUEUE in ladder and _DEGRADE in ladder and ladder.index(Rung.QUEUE) < ladder.index(_DEGRADE)


def _share(used: int, limit: int | None) -> float:
    if limit is None:
        return 0.0
    return used / limit if limit else 1.0
