"""What a head tells is worked out once for all that are alike, and never told of another."""

from __future__ import annotations

from dataclasses import replace

import pytest

from extproc.early import Standing, refuse_early, standing
from extproc.events import HeadersReceived, Likeness
from extproc.identity import Identity
from extproc.refusal import Refusal
from headgate.policy.model import AnonymousIdentity, ApiKeyIdentity, Policy
from headgate.store import Scope
from tests.extproc.conftest import StillSignals
from tests.extproc.exchanges import headers


def alike(likeness: Likeness, tenant: str = "acme", **more: str) -> HeadersReceived:
    received = headers(tenant, **more)
    return HeadersReceived(received.headers, received.is_end, likeness=likeness)


def named(known: Standing) -> str:
    return known.caller.reason if isinstance(known.caller, Refusal) else known.caller.tenant.name


def test_heads_that_are_alike_are_looked_into_once(policy: Policy) -> None:
    likeness = Likeness()
    first = standing(policy, alike(likeness))

    assert standing(policy, alike(likeness, x_request_id="r-2")) is first
    assert named(first) == "acme"


def test_heads_of_which_nothing_is_known_are_each_looked_into(policy: Policy) -> None:
    assert named(standing(policy, headers("acme"))) == "acme"
    assert named(standing(policy, headers("globex"))) == "globex"


def test_another_policy_may_see_the_same_head_otherwise(policy: Policy) -> None:
    likeness = Likeness()
    standing(policy, alike(likeness))
    without_keys = replace(policy, tenants_by_key={})

    assert named(standing(without_keys, alike(likeness))) == "invalid_credential"
    assert named(standing(policy, alike(likeness))) == "acme"


@pytest.mark.parametrize("header", ["x-request-id", "traceparent", "content-length"])
def test_a_credential_in_a_header_that_is_always_different_is_looked_at_every_time(policy: Policy, header: str) -> None:
    strange = replace(policy, identity=(ApiKeyIdentity(header=header), AnonymousIdentity(tenant="public")))
    likeness, name = Likeness(), header.replace("-", "_")

    assert named(standing(strange, alike(likeness, **{name: "acme-key"}))) == "acme"
    assert named(standing(strange, alike(likeness, **{name: "globex-key"}))) == "globex"


def test_a_refusal_is_remembered_too(policy: Policy) -> None:
    likeness = Likeness()
    first = standing(policy, alike(likeness, "nobody"))

    assert named(first) == "invalid_credential"
    assert standing(policy, alike(likeness, "nobody")) is first


def test_only_so_many_heads_are_remembered(policy: Policy) -> None:
    some = replace(policy)
    received = headers()
    for _ in range(10_000):
        standing(some, HeadersReceived(received.headers, received.is_end, likeness=Likeness()))

    assert 0 < len(some.standings) <= 4096


def test_what_changes_is_asked_for_every_time(policy: Policy, signals: StillSignals) -> None:
    likeness = Likeness()
    received = alike(likeness, "hobby", content_length="10")
    known = standing(policy, received)
    assert isinstance(known.caller, Identity)

    assert refuse_early(known, known.caller, received, signals) is None
    longer = alike(likeness, "hobby", content_length="70000")
    refused = refuse_early(standing(policy, longer), known.caller, longer, signals)
    assert refused is not None
    assert refused.status == 413
    signals.leases[Scope.TENANT, "hobby"] = 1
    refused = refuse_early(standing(policy, received), known.caller, received, signals)
    assert refused is not None
    assert refused.reason == "tenant_concurrency"
