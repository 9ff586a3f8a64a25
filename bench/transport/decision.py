"""The whole decision as `headgate serve` makes it: the real service over the memory store and the default policy."""

from __future__ import annotations

import time

from extproc.desk import AdmissionDesk
from extproc.report import Reporter
from extproc.service import ExtProcService
from extproc.signals import ClusterSignals
from headgate.metrics import Metrics
from headgate.policy.load import load_policy
from headgate.settings import DEFAULT_POLICY
from headgate.store.memory import MemoryStore
from headgate.transport import Service


def decision_service() -> Service:
    """What a transport serves; metrics are counted, nothing is logged."""
    policy = load_policy(DEFAULT_POLICY.read_bytes(), DEFAULT_POLICY.name)
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
