"""What a sidecar holds, and what it still has to tell Redis about that."""

from __future__ import annotations

from headgate.store import Lease, LeaseRequest, Refused, Scope
from headgate.store.redis.holdings import Holdings, as_text

REQUEST = LeaseRequest(tenant="acme", tier="premium", cluster="best", tokens=10)


def granted(holdings: Holdings, now: float = 0.0) -> Lease:
    return holdings.granted(holdings.new_id(), REQUEST, now)


def test_no_two_sidecars_make_the_same_lease() -> None:
    one, other = Holdings(15.0), Holdings(15.0)

    assert len({holdings.new_id() for holdings in (one, other) for _ in range(100)}) == 200
    assert one.sidecar != other.sidecar


def test_a_release_is_told_until_it_was_heard() -> None:
    holdings = Holdings(15.0)
    lease = granted(holdings)

    assert holdings.release(lease, 1.0)
    assert not holdings.release(lease, 1.0)

    assert holdings.releases(2.0) == holdings.releases(3.0) == [lease.id]
    holdings.released([lease.id])
    assert holdings.releases(4.0) == []
    assert not holdings.has_news


def test_a_release_that_expiry_has_made_good_is_not_told_any_more() -> None:
    holdings = Holdings(15.0)
    holdings.release(granted(holdings), 1.0)

    assert holdings.releases(15.9) != []
    assert holdings.releases(16.0) == []


def test_a_lease_that_may_have_been_granted_in_vain_is_given_back() -> None:
    holdings = Holdings(15.0)
    lease_id = holdings.new_id()

    holdings.doubt(lease_id, REQUEST, 0.0)

    assert holdings.releases(1.0) == [lease_id]
    assert len(holdings) == 0


def test_what_redis_granted_is_renewed_and_what_it_did_not_is_brought_along() -> None:
    holdings = Holdings(15.0)
    there = granted(holdings)
    here = holdings.grant_share(REQUEST, 2, 1.0)
    assert isinstance(here, Lease)

    holdings.renew_all()

    assert holdings.take_renewals() == [there.id]
    assert [(each.id, each.waited) for each in holdings.take_untold(4.0)] == [(as_text(here.id), 3.0)]
    assert not holdings.has_news
    holdings.renew_all()
    assert holdings.take_renewals() == [there.id, here.id]


def test_a_lease_granted_and_given_back_without_redis_is_never_told() -> None:
    holdings = Holdings(15.0)
    lease = holdings.grant_share(REQUEST, 2, 1.0)
    assert isinstance(lease, Lease)

    holdings.release(lease, 2.0)

    assert not holdings.has_news


def test_what_redis_misses_is_brought_along_again_if_it_is_still_held() -> None:
    holdings = Holdings(15.0)
    held, given_back = granted(holdings), granted(holdings)
    holdings.release(given_back, 1.0)

    holdings.missed([as_text(held.id), as_text(given_back.id)])

    assert [each.id for each in holdings.take_untold(2.0)] == [as_text(held.id)]


def test_a_redis_that_lost_everything_is_told_of_all_that_is_held_and_of_no_release() -> None:
    holdings = Holdings(15.0)
    held, given_back = granted(holdings), granted(holdings)
    holdings.release(given_back, 1.0)

    holdings.lost()

    assert holdings.releases(2.0) == []
    assert [each.id for each in holdings.take_untold(2.0)] == [as_text(held.id)]


def test_without_redis_a_sidecar_grants_its_share_of_every_limit_and_at_least_one() -> None:
    for limits, sidecars, share in (
        ({"cluster_limit": 9}, 3, 3),
        ({"cluster_limit": 10}, 3, 3),
        ({"tenant_limit": 2}, 3, 1),
        ({"tier_limit": 4}, 0, 4),
        ({"cluster_token_limit": 90}, 3, 3),
        ({"cluster_limit": 8, "reserved": {"async": 0.5}}, 2, 2),
        ({"tenant_limit": 0}, 3, 0),
    ):
        holdings = Holdings(15.0)
        question = LeaseRequest(tenant="acme", tier="premium", cluster="best", tokens=10, **limits)
        answers = [holdings.grant_share(question, sidecars, 0.0) for _ in range(20)]
        assert sum(isinstance(answer, Lease) for answer in answers) == share, limits
        assert isinstance(answers[-1], Refused)


def test_what_redis_granted_before_counts_against_the_share() -> None:
    holdings = Holdings(15.0)
    for _ in range(3):
        granted(holdings)

    answer = holdings.grant_share(LeaseRequest(tenant="x", tier="y", cluster="best", cluster_limit=9), 3, 0.0)

    assert isinstance(answer, Refused)
    assert answer.scope is Scope.CLUSTER


def test_numbers_of_others_are_those_of_the_last_answer_less_what_is_ours() -> None:
    holdings = Holdings(15.0)
    lease = granted(holdings)
    holdings.view.learn({"tacme": 4, "cbest": 4, "kbest": 90, "Cbest\0premium": 4}, 10.0)

    assert holdings.view.in_flight(Scope.TENANT, "acme", 10.1) == 4
    holdings.release(lease, 10.2)
    assert holdings.view.in_flight(Scope.CLUSTER, "best", 10.2) == 3
    assert holdings.view.in_flight(Scope.CLUSTER_TOKENS, "best", 10.2) == 80
    assert not holdings.view.is_wanting
    assert holdings.view.in_flight(Scope.CLUSTER, "best", 11.0) == 3
    assert holdings.view.take_wanted(all_of_policy=False) == ["cbest"]
    # Nobody is turned away for numbers that old.
    assert holdings.view.in_flight(Scope.TENANT, "acme", 26.0) == 0
