"""The arithmetic of leases: who gets a slot, who does not, and when to ask again."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from headgate.store import Lease, LeaseRequest, Refused, Scope, Usage
from headgate.store.ledger import MAX_RETRY_AFTER_SECONDS, MIN_RETRY_AFTER_SECONDS, Ledger


def asking(tier: str = "premium", cluster: str | None = "best", **changes: object) -> LeaseRequest:
    return replace(LeaseRequest(tenant="acme", tier=tier, cluster=cluster), **changes)


def granted(ledger: Ledger, request: LeaseRequest, now: float = 0.0) -> Lease:
    answer = ledger.acquire(request, now)
    assert isinstance(answer, Lease)
    return answer


def refused(ledger: Ledger, request: LeaseRequest, now: float = 0.0) -> Refused:
    answer = ledger.acquire(request, now)
    assert isinstance(answer, Refused)
    return answer


def fill(ledger: Ledger, request: LeaseRequest) -> int:
    """Ask until the answer is no; how often it was yes."""
    for count in range(1000):
        if isinstance(ledger.acquire(request, 0.0), Refused):
            return count
    raise AssertionError("no limit")


def test_a_lease_is_counted_in_every_scope_it_takes_a_slot_of() -> None:
    ledger = Ledger()

    granted(ledger, asking(tokens=300))

    assert ledger.in_flight(Scope.TENANT, "acme") == 1
    assert ledger.in_flight(Scope.TIER, "premium") == 1
    assert ledger.in_flight(Scope.CLUSTER, "best") == 1
    assert ledger.in_flight(Scope.CLUSTER_TOKENS, "best") == 300
    assert ledger.usage("best") == Usage(requests=1, tokens=300)
    assert len(ledger) == 1


def test_the_ids_of_leases_are_never_used_again() -> None:
    ledger = Ledger()

    first = granted(ledger, asking())
    ledger.release(first, 1.0)
    second = granted(ledger, asking())

    assert first.id != second.id


@pytest.mark.parametrize(
    ("limits", "scope"),
    [
        ({"tenant_limit": 1}, Scope.TENANT),
        ({"tier_limit": 1}, Scope.TIER),
        ({"cluster_limit": 1}, Scope.CLUSTER),
        ({"cluster_token_limit": 150}, Scope.CLUSTER_TOKENS),
        ({"tenant_limit": 1, "tier_limit": 1, "cluster_limit": 1, "cluster_token_limit": 100}, Scope.TENANT),
        ({"tier_limit": 1, "cluster_limit": 1, "cluster_token_limit": 100}, Scope.TIER),
        ({"cluster_limit": 1, "cluster_token_limit": 100}, Scope.CLUSTER),
    ],
)
def test_the_first_scope_without_room_is_named_and_nothing_is_taken(limits: dict[str, int], scope: Scope) -> None:
    ledger = Ledger()
    request = asking(tokens=100, **limits)
    granted(ledger, request)

    assert refused(ledger, request).scope is scope

    assert len(ledger) == 1
    assert ledger.usage("best") == Usage(requests=1, tokens=100)


@pytest.mark.parametrize(
    ("limits", "scope"),
    [
        ({"tenant_limit": 0}, Scope.TENANT),
        ({"tier_limit": 0}, Scope.TIER),
        ({"cluster_limit": 0}, Scope.CLUSTER),
        ({"cluster_token_limit": 0}, Scope.CLUSTER_TOKENS),
    ],
)
def test_a_limit_of_zero_lets_nothing_through(limits: dict[str, int], scope: Scope) -> None:
    assert refused(Ledger(), asking(tokens=1, **limits)).scope is scope


def test_without_limits_everything_is_let_through() -> None:
    ledger = Ledger()

    for _ in range(100):
        granted(ledger, asking(tokens=10**9))

    assert len(ledger) == 100


def test_a_slot_given_back_is_free_for_another_tenant() -> None:
    ledger = Ledger()
    lease = granted(ledger, asking(cluster_limit=1))
    other = asking(tenant="globex", cluster_limit=1)
    refused(ledger, other)

    assert ledger.release(lease, 1.0)

    granted(ledger, other)


def test_a_lease_is_given_back_once() -> None:
    ledger = Ledger()
    lease, other = granted(ledger, asking(tokens=10)), granted(ledger, asking(tokens=10))

    assert [ledger.release(lease, 1.0), ledger.release(lease, 2.0)] == [True, False]

    assert ledger.usage("best") == Usage(requests=1, tokens=10)
    assert ledger.release(other, 3.0)


def test_tenants_that_hold_nothing_take_no_memory() -> None:
    ledger = Ledger()

    for lease in [granted(ledger, asking(tenant=f"team-{i}", tokens=i)) for i in range(10)]:
        ledger.release(lease, 1.0)
    for i in range(10):
        ledger.in_flight(Scope.TENANT, f"stranger-{i}")
        refused(ledger, asking(tenant=f"stranger-{i}", tenant_limit=0))

    assert not ledger._tenants


def test_a_request_that_runs_on_no_cluster_counts_for_its_tenant_alone() -> None:
    ledger = Ledger()
    passing = asking(cluster=None, tenant_limit=1, tier_limit=0)

    lease = granted(ledger, passing)

    assert ledger.in_flight(Scope.TIER, "premium") == 0
    assert refused(ledger, passing).scope is Scope.TENANT
    assert refused(ledger, asking(tenant_limit=1)).scope is Scope.TENANT
    granted(ledger, asking(tenant="globex", tier_limit=1))
    assert ledger.release(lease, 1.0)


def test_one_cluster_being_full_does_not_fill_another() -> None:
    ledger = Ledger()

    assert fill(ledger, asking(cluster="best", cluster_limit=2)) == 2
    assert fill(ledger, asking(cluster="fast", cluster_limit=3)) == 3


def test_a_reserved_share_is_kept_from_other_tiers_and_free_for_its_own() -> None:
    ledger = Ledger()
    reserved = {"premium": 0.25}

    assert fill(ledger, asking("batch", cluster_limit=8, reserved=reserved)) == 6
    assert fill(ledger, asking("premium", cluster_limit=8, reserved=reserved)) == 2


def test_what_a_tier_has_reserved_and_uses_is_kept_from_nobody_twice() -> None:
    ledger = Ledger()
    reserved = {"premium": 0.25}

    for _ in range(2):
        granted(ledger, asking("premium", cluster_limit=8, reserved=reserved))

    assert fill(ledger, asking("batch", cluster_limit=8, reserved=reserved)) == 6


def test_a_tier_may_use_more_than_its_share_while_nobody_else_has_it_reserved() -> None:
    assert fill(Ledger(), asking("premium", cluster_limit=8, reserved={"premium": 0.25})) == 8
    assert fill(Ledger(), asking("premium", cluster_limit=8, reserved={"premium": 0.25, "async": 0.5})) == 4


def test_tokens_are_reserved_like_slots() -> None:
    ledger = Ledger()
    limits = {"cluster_token_limit": 1000, "reserved": {"premium": 0.4}, "tokens": 100}

    assert fill(ledger, asking("batch", **limits)) == 6
    assert refused(ledger, asking("batch", **limits)).scope is Scope.CLUSTER_TOKENS
    assert fill(ledger, asking("premium", **limits)) == 4


@pytest.mark.parametrize(
    ("share", "limit", "slots"), [(0.29, 100, 29), (0.07, 100, 7), (0.57, 100, 57), (1 / 3, 3, 1), (0.25, 3, 0)]
)
def test_a_share_is_worth_its_whole_slots(share: float, limit: int, slots: int) -> None:
    ledger = Ledger()

    assert fill(ledger, asking("batch", cluster_limit=limit, reserved={"premium": share})) == limit - slots


def test_before_anything_was_released_a_retry_is_guessed() -> None:
    ledger = Ledger()
    granted(ledger, asking(tenant_limit=1))

    assert refused(ledger, asking(tenant_limit=1)).retry_after_seconds == 1.0


def test_a_retry_is_told_from_how_long_leases_are_held_and_how_many_there_are() -> None:
    ledger = Ledger()
    ledger.release(granted(ledger, asking(), now=100.0), now=108.0)
    for _ in range(4):
        granted(ledger, asking(cluster_limit=4))

    assert refused(ledger, asking(cluster_limit=4)).retry_after_seconds == pytest.approx(2.0)


def test_a_retry_follows_the_newest_releases_slowly() -> None:
    ledger = Ledger()
    for held in (10.0, 20.0):
        ledger.release(granted(ledger, asking(), now=0.0), now=held)

    assert refused(ledger, asking(tenant_limit=0)).retry_after_seconds == pytest.approx(11.0)


def test_a_retry_on_one_cluster_is_told_from_that_cluster() -> None:
    ledger = Ledger()
    ledger.release(granted(ledger, asking(cluster="slow"), now=0.0), now=60.0)
    ledger.release(granted(ledger, asking(cluster="fast"), now=0.0), now=0.5)

    assert refused(ledger, asking(cluster="slow", cluster_limit=0)).retry_after_seconds == pytest.approx(60.0)
    assert refused(ledger, asking(cluster="fast", cluster_limit=0)).retry_after_seconds == pytest.approx(0.5)


def test_a_retry_is_never_later_than_clients_are_willing_to_wait_nor_at_once() -> None:
    ledger = Ledger()
    ledger.release(granted(ledger, asking(cluster="slow"), now=0.0), now=1e6)
    ledger.release(granted(ledger, asking(cluster="fast"), now=5.0), now=5.0)

    assert refused(ledger, asking(cluster="slow", cluster_limit=0)).retry_after_seconds == MAX_RETRY_AFTER_SECONDS
    assert refused(ledger, asking(cluster="fast", cluster_limit=0)).retry_after_seconds == MIN_RETRY_AFTER_SECONDS
