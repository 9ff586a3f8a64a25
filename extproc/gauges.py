"""How many slots and tokens there are, beside how many are in use: read when somebody looks."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from headgate.metrics import Metrics, Sample
from headgate.policy.model import Policy
from headgate.store import Scope, Store


def watch_room(metrics: Metrics, policy: Callable[[], Policy], store: Store) -> None:
    """Show the limits of the policy in force, and the tokens that clusters hold."""
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


def _slots(policy: Policy) -> list[Sample]:
    return [
        *_limits(Scope.TIER, {tier.name: tier.tier_concurrency for tier in policy.tiers.values()}),
        *_limits(Scope.CLUSTER, {cluster.name: cluster.capacity.requests for cluster in policy.clusters.values()}),
    ]


def _limits(scope: Scope, limits: Mapping[str, int | None]) -> list[Sample]:
    return [((scope, name), limit) for name, limit in limits.items() if limit is not None]
