"""The store of a sidecar on its own; what it shares with other stores is in the contract."""

from __future__ import annotations

from headgate.store import Lease, LeaseRequest, Refused
from headgate.store.memory import MemoryStore

REQUEST = LeaseRequest(tenant="acme", tier="premium", cluster="best", cluster_limit=1)


async def test_the_time_to_a_retry_is_told_by_the_clock_it_is_given() -> None:
    now = 50.0
    store = MemoryStore(lambda: now)
    lease = await store.acquire(REQUEST)
    assert isinstance(lease, Lease)
    assert lease.granted_at == 50.0
    now = 90.0
    store.release(lease)

    await store.acquire(REQUEST)
    refusal = await store.acquire(REQUEST)

    assert isinstance(refusal, Refused)
    assert refusal.retry_after_seconds == 40.0


async def test_a_question_is_answered_in_one_step_of_the_loop() -> None:
    question = MemoryStore(lambda: 0.0).acquire(REQUEST)

    with_the_answer = None
    try:
        question.send(None)
    except StopIteration as finished:
        with_the_answer = finished.value

    assert isinstance(with_the_answer, Lease)
