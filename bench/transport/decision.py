"""The whole decision as `headgate serve` makes it: the real service over the memory store and the default policy.

Only the clusters are roomy, so that each of many requests at once takes the same route.
"""

from __future__ import annotations

import time
from dataclasses import replace

from extproc.desk import AdmissionDesk
from extproc.report import Reporter
from extproc.service import ExtProcService
from extproc.signals import ClusterSignals
from headgate.metrics import Metrics
from headgate.policy.load import load_policy
from headgate.policy.model import Policy
from headgate.settings import DEFAULT_POLICY
from headgate.store.memory import MemoryStore
from headgate.transport import Service

_ROOM_REQUESTS = 1000


def decision_service() -> Service:
    """What a transport serves; metrics are counted, nothing is logged."""
    policy = _with_room(load_policy(DEFAULT_POLICY.read_bytes(), DEFAULT_POLICY.name))
    store = MemoryStore(time.monotonic)
    desk = AdmissionDesk(store)
    service = ExtProcService(
        policy=lambda: policy,
        desk=desk,
        signals=ClusterSignals(lambda: policy, store, desk.queue),
        report=Reporter(Metrics()).report,
        clock=time.perf_counter,
    )
    return service.service()


def _with_room(policy: Policy) -> Policy:
    clusters = {
        name: replace(cluster, capacity=replace(cluster.capacity, requests=_ROOM_REQUESTS, tokens=None))
        for name, cluster in policy.clusters.items()
    }
    return replace(policy, clusters=clusters)
