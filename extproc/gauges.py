"""How full the clusters are, and how many slots and tokens there are beside how many are in use: read on demand."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from extproc.queue import FairQueue
from extproc.signals import ClusterSignals
from headgate.metrics import Metrics, Sample
from headgate.policy.model import Policy
from headgate.store import Scope, Store


def watch_clusters(metrics: Metrics, policy: Callable[[], Policy], signals: ClusterSignals, queue: FairQueue) -> None:
    """Show how full every cluster is and who waits for it."""
    metrics.watch(
        "saturation",
        "How full a cluster is, 0 to 1.",
        ("cluster",),
        lambda: [((name,), signals.saturation(name)) for name in policy().clusters],
    )
    metrics.watch(
        "cluster_limit",
        "Requests a cluster runs at once, by the policy or as learnt; nothing where there is no limit.",
        ("cluster",),
        lambda: [
            ((cluster.name,), limit)
            for cluster in policy().clusters.values()
            if (limit := signals.request_limit(cluster)) is not None
        ],
    )
    metrics.watch(
        "queue_depth",
        "Requests waiting for a cluster.",
        ("cluster", "tier"),
        lambda: list((_nobody_waits(policy()) | queue.depths()).items()),
    )


def watch_room(metrics: Metrics, policy: Callable[[], Policy], store: Store) -> None:
    """Show the slots in use, the limits of the policy in force, and the tokens that clusters hold."""
    metrics.watch(
        "leases",
        "Slots in use.",
        ("scope", "name"),
        lambda: [
            *(((Scope.TIER, name), store.in_flight(Scope.TIER, name)) for name in policy().tiers),
            *(((Scope.CLUSTER, name), store.in_flight(Scope.CLUSTER, name)) for name in policy().clusters),
        ],
    )
    metrics.watch(
        "lease_limit", "Slots there are; nothing where there is no limit.", ("scope", "name"), lambda: _slots(policy())
    )
    metrics.watch(
        "reserved_tokens",
        "Prompt plus capped output of what is in flight on a cluster.",
        ("cluster",),
        lambda: [((name,), store.usage(name).tokens) for name in policy().clusters],
    )
    metrics.watch(
        "reserved_tokens_limit",
        "Tokens a cluster holds; nothing where there is no limit.",
        ("cluster",),
        lambda: [
            ((name,), cluster.capacity.tokens)
            for name, cluster in policy().clusters.items()
            if cluster.capacity.tokens is not None
        ],
    )


def _nobody_waits(policy: Policy) -> dict[tuple[str, str], int]:
    """So that an empty queue is a zero, which can be added up and compared, and not nothing."""
    waiting = [tier.name for tier in policy.tiers.values() if tier.queue is not None]
    return {(cluster, tier): 0 for cluster in policy.clusters for tier in waiting}


def _slots(policy: Policy) -> list[Sample]:
    return [
        *_limits(Scope.TIER, {tier.name: tier.tier_concurrency for tier in policy.tiers.values()}),
        *_limits(Scope.CLUSTER, {cluster.name: cluster.capacity.requests for cluster in policy.clusters.values()}),
    ]


def _limits(scope: Scope, limits: Mapping[str, int | None]) -> list[Sample]:
    return [((scope, name), limit) for name, limit in limits.items() if limit is not None]
