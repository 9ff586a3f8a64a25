"""Keeps asking the model servers of the policy in force how they are; answers at once from what it heard."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Coroutine, Mapping
from dataclasses import dataclass

import httpx

from extproc.server_load import ServerLoad
from extproc.servers.page import MetricsPage, NoReading
from extproc.servers.presence import or_nobody
from extproc.servers.reading import Reading, combine, is_unavailable, saturation
from extproc.servers.triton import TritonServer, load_client
from extproc.servers.watch import Ask, Timing, Watch
from headgate.policy.model import Cluster, MetricsAddress, Policy, Protocol

_REUSED_SECONDS = 0.05
_NO_WATCHES: tuple[Watch, ...] = ()
_NOBODY = Reading(is_ready=False)


@dataclass(frozen=True, slots=True)
class _Target:
    """What a watch is made from; a reload keeps those that stay the same."""

    cluster: str
    place: MetricsAddress
    models: frozenset[str]
    index: MetricsAddress | None
    """Where to ask which models an ensemble runs."""


class ServerPoller:
    """A part of the process. `failed` is told the cluster of every question that got no answer."""

    def __init__(
        self, timing: Timing, clock: Callable[[], float], failed: Callable[[str], None] = lambda _cluster: None
    ) -> None:
        self._timing = timing
        self._clock = clock
        self._failed = failed
        self._wanted: tuple[_Target, ...] = ()
        self._watches: dict[_Target, Watch] = {}
        self._by_cluster: dict[str, tuple[Watch, ...]] = {}
        self._loads: dict[str, tuple[float, ServerLoad | None]] = {}
        self._servers: dict[MetricsAddress, TritonServer] = {}
        self._client: httpx.AsyncClient | None = None
        self._retired: set[asyncio.Task[None]] = set()

    def follow(self, policy: Policy) -> None:
        """Ask the servers of this policy from now on."""
        self._wanted = tuple(target for cluster in policy.clusters.values() for target in _targets(cluster))
        if self._client is not None:
            self._adjust(self._client)

    async def start(self) -> str:
        """Begin to ask."""
        if any(target.place.is_grpc for target in self._wanted):
            # Now, not beside the first requests.
            await load_client()
        limits = httpx.Limits(max_connections=None, keepalive_expiry=4 * self._timing.interval_seconds)
        # The watch bounds the whole question; a proxy of the environment is not on the way to a neighbour.
        self._client = httpx.AsyncClient(timeout=None, limits=limits, trust_env=False)  # noqa: S113
        self._adjust(self._client)
        return ""

    async def stop(self) -> None:
        """Ask no more, and hang up."""
        self._wanted = ()
        if self._client is not None:
            self._adjust(self._client)
            if self._retired:
                await asyncio.wait(self._retired)
            await self._client.aclose()
            self._client = None

    def load(self, cluster: str) -> ServerLoad | None:
        """How full the cluster's servers are by their own account; None when that is not known lately.

        Rules ask for every request, and answers come once a second: so it is worked out now and then only.
        """
        if cluster not in self._by_cluster:
            return None
        now = self._clock()
        kept = self._loads.get(cluster)
        if kept is None or now - kept[0] >= _REUSED_SECONDS:
            kept = self._loads[cluster] = (now, self._load(cluster))
        return kept[1]

    def reading(self, cluster: str) -> Reading | None:
        """All its servers said lately, in one."""
        fresh = self._fresh(cluster)
        return combine(fresh) if fresh else None

    def age_seconds(self, cluster: str) -> float:
        """How old the oldest of the answers is that the cluster's servers gave last; 0.0 when none is asked."""
        return max((watch.age_seconds for watch in self._by_cluster.get(cluster, ())), default=0.0)

    @property
    def clusters(self) -> Collection[str]:
        """Those whose servers are asked."""
        return self._by_cluster.keys()

    def _load(self, cluster: str) -> ServerLoad | None:
        fresh = self._fresh(cluster)
        if not fresh:
            return None
        watches = self._by_cluster[cluster]
        return ServerLoad(
            saturation=saturation(fresh),
            queue_depth=combine(fresh).waiting or 0,
            age_seconds=self.age_seconds(cluster),
            is_unavailable=is_unavailable([watch.fresh for watch in watches if not watch.is_nobody_there]),
        )

    def _fresh(self, cluster: str) -> list[Reading]:
        watches = self._by_cluster.get(cluster, _NO_WATCHES)
        if watches and all(watch.is_nobody_there for watch in watches):
            return [_NOBODY]
        return [fresh for watch in watches if (fresh := watch.fresh) is not None]

    def _adjust(self, client: httpx.AsyncClient) -> None:
        for target in self._watches.keys() - set(self._wanted):
            self._retire(self._watches.pop(target).stop())
        places = {place for target in self._wanted for place in (target.place, target.index) if place is not None}
        for place in self._servers.keys() - places:
            self._retire(self._servers.pop(place).close())
        for position, target in enumerate(self._wanted, 1):
            if target not in self._watches:
                watch = self._watches[target] = self._watch(target, client)
                watch.start(self._timing.interval_seconds * position / len(self._wanted))
        self._by_cluster = _grouped(self._watches)
        self._loads.clear()

    def _watch(self, target: _Target, client: httpx.AsyncClient) -> Watch:
        cluster = target.cluster
        ask = or_nobody(target.place.address, self._question(target, client))
        return Watch(
            cluster,
            str(target.place),
            ask,
            self._timing,
            self._clock,
            asked=lambda: self._forget(cluster),
            failed=lambda: self._failed(cluster),
        )

    def _forget(self, cluster: str) -> None:
        """There is news: what was worked out before does not hold."""
        self._loads.pop(cluster, None)

    def _question(self, target: _Target, client: httpx.AsyncClient) -> Ask:
        if target.place.is_grpc:
            server = self._server(target.place)
            return lambda: server.read(target.models)
        page = MetricsPage(target.place, client)
        if target.index is None:
            return lambda: page.read(())
        index = self._server(target.index)

        async def ask() -> Reading:
            try:
                models: Collection[str] = await index.inner_models(target.models)
            except NoReading:
                # Better the whole server's queue than none.
                models = ()
            return await page.read(models)

        return ask

    def _server(self, place: MetricsAddress) -> TritonServer:
        if place not in self._servers:
            self._servers[place] = TritonServer(place)
        return self._servers[place]

    def _retire(self, ending: Coroutine[None, None, None]) -> None:
        task = asyncio.get_running_loop().create_task(ending)
        self._retired.add(task)
        task.add_done_callback(self._retired.discard)


def _targets(cluster: Cluster) -> list[_Target]:
    triton = cluster.frontends.get(Protocol.TRITON)
    models = frozenset((triton.model,)) if triton is not None else frozenset[str]()
    grpc = [place for place in cluster.metrics if place.is_grpc]
    return [
        _Target(cluster.name, place, models, None if place.is_grpc else _same_host(place, grpc))
        for place in cluster.metrics
    ]


def _same_host(place: MetricsAddress, others: list[MetricsAddress]) -> MetricsAddress | None:
    host = place.address.rpartition(":")[0]
    return next((other for other in others if other.address.rpartition(":")[0] == host), None)


def _grouped(watches: Mapping[_Target, Watch]) -> dict[str, tuple[Watch, ...]]:
    names = dict.fromkeys(target.cluster for target in watches)
    return {name: tuple(w for target, w in watches.items() if target.cluster == name) for name in names}
