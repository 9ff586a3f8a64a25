"""The ledger under any sequence of questions and releases: no limit bends, nothing is lost, nothing is left over."""

from __future__ import annotations

import copy
from dataclasses import dataclass

from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, multiple, rule
from msgspec.structs import replace

from headgate.store import Lease, LeaseRequest, Refused, Scope, Usage
from headgate.store.ledger import Ledger


@dataclass(frozen=True, kw_only=True)
class Rules:
    """The limits of one imagined policy."""

    tenant_limits: dict[str, int | None]
    tier_limits: dict[str, int | None]
    cluster_limits: dict[str, int | None]
    token_limits: dict[str, int | None]
    reserved: dict[str, float]


TENANTS = {"acme": "premium", "umbrella": "premium", "globex": "interactive", "hobby": "batch", "public": "batch"}
TIERS = ("premium", "interactive", "batch")
CLUSTERS = ("best", "fast")
SHARES = st.lists(st.integers(0, 50), min_size=3, max_size=3).filter(lambda percents: sum(percents) <= 100)


def limit_of(names: object, largest: int) -> st.SearchStrategy[dict[str, int | None]]:
    return st.fixed_dictionaries({name: st.none() | st.integers(0, largest) for name in names})


RULES = st.builds(
    Rules,
    tenant_limits=limit_of(TENANTS, 6),
    tier_limits=limit_of(TIERS, 8),
    cluster_limits=limit_of(CLUSTERS, 12),
    token_limits=limit_of(CLUSTERS, 400),
    reserved=SHARES.map(lambda percents: {tier: p / 100 for tier, p in zip(TIERS, percents, strict=True) if p}),
)


class LedgerUnderLoad(RuleBasedStateMachine):
    """Any sequence of questions and releases, against a plain list of who holds what."""

    leases: Bundle[Lease] = Bundle("leases")

    @initialize(rules=RULES)
    def begin(self, rules: Rules) -> None:
        self.rules = rules
        self.ledger = Ledger()
        self.now = 0.0
        self.held: list[Lease] = []
        self.released: list[Lease] = []

    @rule(
        target=leases,
        tenant=st.sampled_from(list(TENANTS)),
        cluster=st.none() | st.sampled_from(CLUSTERS),
        tokens=st.integers(0, 150),
    )
    def acquire(self, tenant: str, cluster: str | None, tokens: int) -> object:
        answer = self.ledger.acquire(self.question(tenant, cluster, tokens), self.now)
        if isinstance(answer, Refused):
            assert 0 < answer.retry_after_seconds <= 120
            return multiple()
        assert answer.id not in {lease.id for lease in (*self.held, *self.released)}
        self.held.append(answer)
        return answer

    @rule(lease=consumes(leases))
    def release(self, lease: Lease) -> None:
        assert self.ledger.release(lease, self.now)
        self.held.remove(lease)
        self.released.append(lease)

    @rule(data=st.data())
    def release_again(self, data: st.DataObject) -> None:
        if self.released:
            assert not self.ledger.release(data.draw(st.sampled_from(self.released)), self.now)

    @rule(seconds=st.floats(0, 1000))
    def pass_time(self, seconds: float) -> None:
        self.now += seconds

    @invariant()
    def counts_are_those_of_the_leases_held(self) -> None:
        assert len(self.ledger) == len(self.held)
        for tenant in TENANTS:
            assert self.ledger.in_flight(Scope.TENANT, tenant) == len(self.of(tenant=tenant))
        for tier in TIERS:
            on_clusters = [lease for lease in self.of(tier=tier) if lease.request.cluster]
            assert self.ledger.in_flight(Scope.TIER, tier) == len(on_clusters)
        for cluster in CLUSTERS:
            there = self.of(cluster=cluster)
            tokens = sum(lease.request.tokens for lease in there)
            assert self.ledger.usage(cluster) == Usage(requests=len(there), tokens=tokens)

    @invariant()
    def no_limit_is_exceeded(self) -> None:
        for scope, limits in (
            (Scope.TENANT, self.rules.tenant_limits),
            (Scope.TIER, self.rules.tier_limits),
            (Scope.CLUSTER, self.rules.cluster_limits),
            (Scope.CLUSTER_TOKENS, self.rules.token_limits),
        ):
            for name, limit in limits.items():
                assert limit is None or self.ledger.in_flight(scope, name) <= limit

    @invariant()
    def every_tier_can_have_what_it_reserved(self) -> None:
        for cluster in CLUSTERS:
            for tier, share in self.rules.reserved.items():
                slots, tokens = self.unused(cluster, tier, share)
                if slots > 0:
                    probe = self.question(tenant_of(tier), cluster, tokens)
                    unhindered = replace(probe, tenant_limit=None, tier_limit=None)
                    assert isinstance(copy.deepcopy(self.ledger).acquire(unhindered, self.now), Lease)

    def teardown(self) -> None:
        if not hasattr(self, "ledger"):
            return
        for lease in self.held:
            assert self.ledger.release(lease, self.now)
        self.held.clear()
        self.counts_are_those_of_the_leases_held()
        assert not self.ledger._tenants

    def question(self, tenant: str, cluster: str | None, tokens: int) -> LeaseRequest:
        rules, tier = self.rules, TENANTS[tenant]
        return LeaseRequest(
            tenant=tenant,
            tier=tier,
            cluster=cluster,
            tokens=tokens,
            tenant_limit=rules.tenant_limits[tenant],
            tier_limit=rules.tier_limits[tier],
            cluster_limit=rules.cluster_limits[cluster] if cluster else None,
            cluster_token_limit=rules.token_limits[cluster] if cluster else None,
            reserved=rules.reserved,
        )

    def unused(self, cluster: str, tier: str, share: float) -> tuple[int, int]:
        """Slots and tokens the tier has reserved there and does not use; a pool without a limit has room for one."""
        mine = self.of(cluster=cluster, tier=tier)
        limit, token_limit = self.rules.cluster_limits[cluster], self.rules.token_limits[cluster]
        slots = 1 if limit is None else round(share * 100) * limit // 100 - len(mine)
        used_tokens = sum(lease.request.tokens for lease in mine)
        tokens = 1 if token_limit is None else round(share * 100) * token_limit // 100 - used_tokens
        return slots, max(0, tokens)

    def of(self, *, tenant: str | None = None, tier: str | None = None, cluster: str | None = None) -> list[Lease]:
        return [
            lease
            for lease in self.held
            if tenant in (None, lease.request.tenant)
            and tier in (None, lease.request.tier)
            and cluster in (None, lease.request.cluster)
        ]


def tenant_of(tier: str) -> str:
    return next(tenant for tenant, its_tier in TENANTS.items() if its_tier == tier)


TestLedgerUnderLoad = LedgerUnderLoad.TestCase
