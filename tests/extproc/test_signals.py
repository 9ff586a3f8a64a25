"""How full the clusters are, from what is really in flight."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from extproc.capacity import START_PER_ENDPOINT
from extproc.queue import FairQueue
from extproc.signals import ClusterSignals, ServerLoad
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


# what the servers say


def heard(policy: Policy, load: ServerLoad | None, store: MemoryStore | None = None) -> ClusterSignals:
    known = store or MemoryStore(lambda: 0.0)
    return ClusterSignals(lambda: policy, known, FairQueue(), lambda cluster: load)


@pytest.mark.parametrize(
    ("load", "saturation", "depth"),
    [
        (None, 0.5, 0),
        (ServerLoad(saturation=0.9, queue_depth=7, age_seconds=0.1), 0.9, 7),
        (ServerLoad(saturation=0.1, queue_depth=0, age_seconds=0.1), 0.5, 0),
        (ServerLoad(saturation=3.0, queue_depth=0, age_seconds=0.1), 1.0, 0),
    ],
    ids=["nothing heard", "fuller than we know", "emptier than we know", "absurd"],
)
def test_a_cluster_is_as_full_as_the_fuller_of_what_we_know_and_what_it_says(
    policy: Policy, load: ServerLoad | None, saturation: float, depth: int
) -> None:
    store = MemoryStore(lambda: 0.0)
    hold(store, 1)

    signals = heard(policy, load, store)

    assert (signals.saturation("best"), signals.queue_depth("best")) == (saturation, depth)


GONE = ServerLoad(saturation=1.0, queue_depth=0, age_seconds=9.0, is_unavailable=True)


@pytest.mark.parametrize(
    ("tier", "load", "is_degraded"),
    [("premium", GONE, True), ("interactive", GONE, True), ("best_effort", GONE, False), ("premium", None, False)],
    ids=["waits first", "degrades first", "is never degraded", "nothing heard"],
)
def test_tiers_that_can_be_are_degraded_while_no_server_of_a_cluster_takes_requests(
    policy: Policy, tier: str, load: ServerLoad | None, is_degraded: bool
) -> None:
    signals = heard(policy, load)

    assert signals.is_degraded(policy.tiers[tier], "best") == is_degraded
    assert signals.is_unavailable("best") == (load is GONE)
    assert signals.saturation("best") == (1.0 if load else 0.0)


def test_a_degradation_ends_with_the_absence_and_one_from_before_it_with_the_load(policy: Policy) -> None:
    loads: list[ServerLoad | None] = [GONE]
    store = MemoryStore(lambda: 0.0)
    signals = ClusterSignals(lambda: policy, store, FairQueue(), lambda cluster: loads[-1])
    leases, interactive = hold(store, 2), policy.tiers["interactive"]

    assert signals.is_degraded(interactive, "best")
    loads.append(None)
    assert not signals.is_degraded(interactive, "best")
    signals.begin_degrading(interactive, "best", Scope.CLUSTER)
    loads.append(GONE)
    store.release(leases[0])
    assert signals.is_degraded(interactive, "best")
    loads.append(None)
    assert not signals.is_degraded(interactive, "best")


def test_whoever_waits_in_the_servers_waits_for_the_cluster_too(policy: Policy) -> None:
    queue = FairQueue()
    in_line(queue, "premium")
    load = ServerLoad(saturation=0.0, queue_depth=7, age_seconds=0.1)
    signals = ClusterSignals(lambda: policy, MemoryStore(lambda: 0.0), queue, lambda cluster: load)

    assert signals.queue_depth("best") == 8


def test_what_was_learnt_of_an_auto_cluster_is_what_it_is_full_against(revise: Callable[..., Policy]) -> None:
    policy = revise(clusters={"best": {"capacity": Capacity(auto=True)}})
    store = MemoryStore(lambda: 0.0)
    signals = ClusterSignals(lambda: policy, store, FairQueue())
    hold(store, 4)

    assert signals.request_limit(policy.clusters["best"]) == START_PER_ENDPOINT
    assert signals.saturation("best") == 4 / START_PER_ENDPOINT
    assert signals.request_limit(policy.clusters["standard"]) == 2


# degrading


def in_line(queue: FairQueue, tier: str) -> None:
    request = LeaseRequest(tenant="acme", tier=tier, cluster="best")
    limits = Queue(max_wait_seconds=1.0, max_depth=10)
    queue.join(request, queue=limits, priority=0, weight=1.0, size_bytes=1, now=0.0)


def test_a_tier_is_degraded_from_the_refusal_until_the_cluster_has_emptied(policy: Policy) -> None:
    store = MemoryStore(lambda: 0.0)
    signals = ClusterSignals(lambda: policy, store, FairQueue())
    [lease, _] = hold(store, 2)
    interactive = policy.tiers["interactive"]

    assert not signals.is_degraded(interactive, "best")
    signals.begin_degrading(interactive, "best", Scope.CLUSTER)
    assert signals.is_degraded(interactive, "best")
    store.release(lease)
    assert not signals.is_degraded(interactive, "best")


def test_a_request_too_big_for_the_tokens_left_degrades_others_only_while_the_cluster_is_full(
    policy: Policy,
) -> None:
    store = MemoryStore(lambda: 0.0)
    signals = ClusterSignals(lambda: policy, store, FairQueue())
    hold(store, 1, tokens=30_000)
    interactive = policy.tiers["interactive"]

    signals.begin_degrading(interactive, "best", Scope.CLUSTER_TOKENS)

    assert not signals.is_degraded(interactive, "best")


def test_a_tier_that_waits_first_is_degraded_as_long_as_its_line_for_the_full_cluster_lasts(
    policy: Policy,
) -> None:
    store, queue = MemoryStore(lambda: 0.0), FairQueue()
    signals = ClusterSignals(lambda: policy, store, queue)
    hold(store, 2)
    premium = policy.tiers["premium"]

    in_line(queue, "premium")
    signals.begin_degrading(premium, "best", Scope.CLUSTER)
    assert signals.is_degraded(premium, "best")
    waiter = queue.next("best", 0.0)
    assert waiter is not None
    queue.leave(waiter, 0.0)
    in_line(queue, "interactive")
    assert not signals.is_degraded(premium, "best")
