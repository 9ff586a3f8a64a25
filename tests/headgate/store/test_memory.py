"""The store of a sidecar on its own; what it shares with other stores is in the contract."""

from __future__ import annotations

from headgate.store import Lease, LeaseRequest, Refused
from headgate.store.memory import MemoryStore

REQUEST = LeaseRequest(tenant="acme", tier="premium", cluster="best", cluster_limit=1)


def ask(store: MemoryStore) -> Lease | Refused | None:
    """What the store says before it returns; anything later is too late for `[answer]`."""
    answers: list[Lease | Refused | None] = []
    store.acquire(REQUEST, answers.append)
    [answer] = answers
    return answer


def test_the_time_to_a_retry_is_told_by_the_clock_it_is_given() -> None:
    now = 50.0
    store = MemoryStore(lambda: now)
    lease = ask(store)
    assert isinstance(lease, Lease)
    assert lease.granted_at == 50.0
    now = 90.0
    store.release(lease)

    ask(store)
    refusal = ask(store)

    assert isinstance(refusal, Refused)
    assert refusal.retry_after_seconds == 40.0


def test_a_question_is_answered_before_the_call_returns() -> None:
    assert isinstance(ask(MemoryStore(lambda: 0.0)), Lease)
