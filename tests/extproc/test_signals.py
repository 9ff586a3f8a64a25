"""How full the clusters are, from what is really in flight."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from extproc.queue import FairQueue
from extproc.signals import ClusterSignals
from headgate.policy.model import Capacity, Policy, Queue
from headgate.store import Lease, LeaseRequest, Refused, Scope
from headgate.store.memory import MemoryStore


def hold(store: MemoryStore, times: int, tokens: int = 0, tenant: str = "acme") -> list[Lease]:
    request = LeaseRequest(tenant=tenant, tier="premium", cluster="best", tokens=tokens)
    answers: list[Lease | Refused | None] = []
    for _ in range(times):
        store.acquire(request, answers.append)
    return [lease for lease in answers if isinstance(lease, Lease)]


@pytest.mark.parametrize(
    ("capacity", "held", "tokens", "saturation"),
    [
        (Capacity(requests=4), 0, 0, 0.0),
        (Capacity(requests=4), 1, 0, 0.25),
        (Capacity(requests=4), 4, 0, 1.0),
        (Capacity(requests=4), 5, 0, 1.0),
        (Capacity(requests=4, tokens=1000), 1, 900, 0.9),
        (Capacity(requests=4, tokens=1000), 3, 100, 0.75),
        (Capacity(tokens=1000), 2, 250, 0.5),
        (Capacity(), 9, 9, 0.0),
        (Capacity(requests=0), 0, 0, 1.0),
        (Capacity(tokens=0), 0, 0, 1.0),
    ],
)
def test_a_cluster_is_as_full_as_the_fuller_of_its_requests_and_tokens(
    revise: Callable[..., Policy], capacity: Capacity, held: int, tokens: int, saturation: float
) -> None:
    policy = revise(clusters={"best": {"capacity": capacity}})
    store = MemoryStore(lambda: 0.0)
    signals = ClusterSignals(lambda: policy, store, FairQueue())

    hold(store, held, tokens)

    assert signals.saturation("best") == saturation


def test_a_release_makes_a_cluster_emptier(policy: Policy) -> None:
    store = MemoryStore(lambda: 0.0)
    signals = ClusterSignals(lambda: policy, store, FairQueue())
    [lease, _] = hold(store, 2)

    store.release(lease)

    assert signals.saturation("best") == 0.5
    assert [signals.in_flight(*who) for who in ((Scope.TENANT, "acme"), (Scope.CLUSTER, "best"))] == [1, 1]


def test_an_unknown_cluster_is_never_full(policy: Policy) -> None:
    signals = ClusterSignals(lambda: policy, MemoryStore(lambda: 0.0), FairQueue())

    assert (signals.saturation("nope"), signals.queue_depth("nope")) == (0.0, 0)
    assert signals.in_flight(Scope.TENANT, "nobody") == 0


def test_the_queue_depth_is_who_waits_for_the_cluster(policy: Policy) -> None:
    queue = FairQueue()
    signals = ClusterSignals(lambda: policy, MemoryStore(lambda: 0.0), queue)
    for tier in ("premium", "interactive"):
        request = LeaseRequest(tenant="acme", tier=tier, cluster="best")
        limits = Queue(max_wait_seconds=1.0, max_depth=10)
        queue.join(request, queue=limits, priority=0, weight=1.0, size_bytes=1, now=0.0)

    assert signals.queue_depth("best") == 2


def test_a_new_policy_counts_from_its_first_moment(policy: Policy, revise: Callable[..., Policy]) -> None:
    policies = [policy]
    store = MemoryStore(lambda: 0.0)
    signals = ClusterSignals(lambda: policies[-1], store, FairQueue())
    hold(store, 2)

    policies.append(revise(clusters={"best": {"capacity": Capacity(requests=8)}}))

    assert signals.saturation("best") == 0.25
