"""The sections of the live page that are about deciding: clusters, tiers, tenants, and the last decisions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from itertools import islice

from extproc.queue import FairQueue
from extproc.recent import RecentDecisions
from extproc.servers.poller import ServerPoller
from extproc.signals import ClusterSignals
from headgate.live.board import LiveBoard
from headgate.live.window import RecentRequests, Usage
from headgate.policy.model import Policy, Tier
from headgate.store import Scope, Store

_MAX_ROWS = 40


class LiveSections:
    """Reads what the others know; keeps nothing."""

    def __init__(
        self,
        *,
        policy: Callable[[], Policy],
        store: Store,
        queue: FairQueue,
        signals: ClusterSignals,
        servers: ServerPoller,
        decisions: RecentDecisions,
        requests: RecentRequests,
    ) -> None:
        self._policy = policy
        self._store = store
        self._queue = queue
        self._signals = signals
        self._servers = servers
        self._decisions = decisions
        self._requests = requests

    def show_on(self, board: LiveBoard) -> None:
        """Put all sections up."""
        board.show("clusters", self._clusters)
        board.show("tiers", self._tiers)
        board.show("tenants", self._tenants)
        board.show("decisions", self._decisions.newest_first)

    def _clusters(self) -> list[dict[str, object]]:
        clusters = self._policy().clusters
        fullest = sorted(clusters, key=self._signals.saturation, reverse=True)
        shown = set(fullest[:_MAX_ROWS])
        return [self._cluster(name) for name in clusters if name in shown]

    def _cluster(self, name: str) -> dict[str, object]:
        cluster = self._policy().clusters[name]
        usage = self._store.usage(name)
        return {
            "name": name,
            "saturation": self._signals.saturation(name),
            "requests": usage.requests,
            "max_requests": self._signals.request_limit(cluster),
            "tokens": usage.tokens,
            "max_tokens": cluster.capacity.tokens,
            "waiting": self._queue.depth(name),
            "servers": self._server(name),
        }

    def _server(self, name: str) -> dict[str, object] | None:
        """What the cluster's servers say; without a reading only for how long they have said nothing."""
        if name not in self._servers.clusters:
            return None
        reading = self._servers.reading(name)
        said = asdict(reading) if reading is not None else {}
        return said | {"is_stale": reading is None, "age_seconds": self._servers.age_seconds(name)}

    def _tiers(self) -> list[dict[str, object]]:
        waiting: dict[str, int] = {}
        for (_, tier), depth in self._queue.depths().items():
            waiting[tier] = waiting.get(tier, 0) + depth
        tiers = sorted(self._policy().tiers.values(), key=lambda tier: tier.priority)
        rows = [self._tier(tier, waiting.get(tier.name, 0)) for tier in tiers]
        unknown = self._decisions.verdicts("")
        return [*rows, {"name": "", "verdicts": unknown}] if unknown else rows

    def _tier(self, tier: Tier, waiting: int) -> dict[str, object]:
        return {
            "name": tier.name,
            "in_flight": self._store.in_flight(Scope.TIER, tier.name),
            "limit": tier.tier_concurrency,
            "waiting": waiting,
            "verdicts": self._decisions.verdicts(tier.name),
            "first_token_p95_seconds": self._requests.first_token_seconds(tier.name, 0.95),
            "first_token_slo_seconds": tier.ttft_slo_seconds,
        }

    def _tenants(self) -> list[dict[str, object]]:
        usage = self._requests.usage()
        total_tokens = sum(each.tokens for each in usage.values())
        # Who is asking right now may not have finished anything yet.
        names = dict.fromkeys((*islice(usage, _MAX_ROWS), *self._decisions.tenants()))
        return [self._tenant(name, usage.get(name) or Usage(), total_tokens) for name in names]

    def _tenant(self, name: str, usage: Usage, total_tokens: int) -> dict[str, object]:
        tenant = self._policy().tenants.get(name)
        return {
            "name": name,
            "tier": tenant.tier if tenant else "",
            "in_flight": self._store.in_flight(Scope.TENANT, name),
            "requests": usage.requests,
            "tokens": usage.tokens,
            "share": usage.tokens / total_tokens if total_tokens else 0.0,
            "cost_dollars": usage.cost_dollars,
        }
