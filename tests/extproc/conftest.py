"""One policy that fits on a page, ways to revise it, clusters set by hand, a desk and a served service."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import grpc.aio
import pytest
import pytest_asyncio

from extproc.routing import Signals
from headgate.policy.load import load_policy
from headgate.policy.model import Cluster, Policy, Tier
from headgate.store import Scope
from headgate.store.memory import MemoryStore
from headgate.transport import Server
from tests.extproc.desks import Desk
from tests.extproc.sidecars import START, Sidecar

REVISE = Callable[..., Policy]

# The keys are acme-key, globex-key and hobby-key.
POLICY = b"""
apiVersion: headgate/v1
identity:
  - jwt: {payload_header: x-jwt-payload, tenant_claim: org}
  - api_key: {header: authorization}
  - mtls: {spiffe: "spiffe://mesh/ns/{tenant}/*"}
  - anonymous: {tenant: public}
tenants:
  acme:   {tier: premium, api_key_sha256: ["afacab3575137afa4e00d9cbcafcb14c9ae25f779d964eb0ea5b2c4eb5dfd163"]}
  globex: {tier: interactive, api_key_sha256: ["f2a455b59b858a04c51108416af2042203cb6ac35fa4141fba4148bc856e78d4"]}
  hobby:  {tier: best_effort, api_key_sha256: ["ae58499cbf96dabd185f72ae281914ffe58af5328ae1902b63682f97bf3fb645"]}
  public: {tier: best_effort}
tiers:
  premium:
    priority: 0
    queue: {max_wait: 2s, max_depth: 2}
    on_overload: [queue, degrade, reject]
    output_tokens: {default: 512, max: 1200}
  interactive: {priority: 1, on_overload: [degrade, reject], output_tokens: {default: 256, max: 700}}
  best_effort:
    priority: 2
    concurrency: {tier: 8, tenant: 1}
    on_overload: [reject]
    output_tokens: {max: 400}
    max_body: 64KiB
models:
  assistant:
    routes:
      - {when: 'tier == "premium"', cluster: best, max_output_tokens: 1000}
      - {cluster: standard, reason: everyone}
      - {cluster: fast, max_output_tokens: 300}
    degrade: [fast, tiny]
  sentiment:
    routes:
      - {cluster: sentiment}
clusters:
  best:
    frontends:
      - {protocol: openai, model: llama-70b, endpoints: ["10.0.0.1:8000"]}
      - {protocol: triton, model: ensemble, endpoints: ["10.0.0.1:8001"]}
    capacity: {requests: 2, tokens: 50_000}
  standard:  {protocol: openai, model: llama-8b, endpoints: ["10.0.0.2:8000"], capacity: {requests: 2}}
  fast:
    frontends:
      - {protocol: openai, model: llama-1b, endpoints: ["10.0.0.3:8000"]}
      - {protocol: triton, model: assistant, endpoints: ["10.0.0.3:8001"]}
    capacity: {requests: 4}
  tiny:      {protocol: openai, model: llama-tiny, endpoints: ["10.0.0.4:8000"], capacity: {requests: 4}}
  sentiment: {protocol: triton, model: sentiment, endpoints: ["10.0.0.5:8000"]}
"""


@pytest.fixture(scope="session")
def policy() -> Policy:
    return load_policy(POLICY, "policy.yaml")


@pytest.fixture(scope="session")
def revise(policy: Policy) -> REVISE:
    """The policy with some fields of some tiers, tenants, models or clusters changed."""

    def revised(**sections: Mapping[str, Mapping[str, Any]]) -> Policy:
        changed: dict[str, Any] = {}
        for section, entries in sections.items():
            values = getattr(policy, section)
            changed[section] = {**values, **{name: replace(values[name], **fields) for name, fields in entries.items()}}
        return replace(policy, **changed)

    return revised


@dataclass
class StillSignals:
    """Clusters in the state a test puts them in; idle unless told otherwise."""

    saturations: dict[str, float] = field(default_factory=dict)
    depths: dict[str, int] = field(default_factory=dict)
    leases: dict[tuple[Scope, str], int] = field(default_factory=dict)
    limits: dict[str, int] = field(default_factory=dict)
    degraded: dict[tuple[str, str], Scope] = field(default_factory=dict)
    unavailable: set[str] = field(default_factory=set)

    def saturation(self, cluster: str) -> float:
        return self.saturations.get(cluster, 0.0)

    def queue_depth(self, cluster: str) -> int:
        return self.depths.get(cluster, 0)

    def in_flight(self, scope: Scope, name: str) -> int:
        return self.leases.get((scope, name), 0)

    def request_limit(self, cluster: Cluster) -> int | None:
        return self.limits.get(cluster.name, cluster.capacity.requests)

    def is_unavailable(self, cluster: str) -> bool:
        return cluster in self.unavailable

    def is_degraded(self, tier: Tier, cluster: str) -> bool:
        return (tier.name, cluster) in self.degraded or cluster in self.unavailable

    def begin_degrading(self, tier: Tier, cluster: str, scope: Scope) -> None:
        self.degraded[(tier.name, cluster)] = scope


@pytest.fixture
def signals() -> StillSignals:
    return StillSignals()


@pytest.fixture(scope="session")
def idle_signals() -> StillSignals:
    """For tests that ask many times and change nothing."""
    return StillSignals()


@pytest.fixture
def desk() -> Desk:
    return Desk()


@pytest_asyncio.fixture(loop_scope="module")
async def start(policy: Policy, new_server: Callable[..., Server]) -> AsyncIterator[START]:
    running: list[Sidecar] = []

    async def start(
        changed: Policy = policy, *, store: MemoryStore | None = None, signals: Signals | None = None
    ) -> Sidecar:
        sidecar = Sidecar(changed, store or MemoryStore(time.monotonic), signals, new_server)
        address = await sidecar.server.start()
        sidecar.channel = grpc.aio.insecure_channel(address)
        running.append(sidecar)
        return sidecar

    yield start
    for sidecar in running:
        await sidecar.channel.close()
        await sidecar.server.drain(0)


@pytest_asyncio.fixture(loop_scope="module")
async def sidecar(start: START) -> Sidecar:
    return await start()
