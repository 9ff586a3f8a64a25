"""Who holds what: leases on tenants, tiers and clusters, asked for and granted in one atomic step.

A lease is the right to hold one in-flight slot until it is released or expires. The store decides nothing about
policy: every limit comes with the question. Implementations: `headgate.store.memory`, `headgate.store.redis`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

import msgspec


class Scope(StrEnum):
    """What a limit is about; the same word in metric, log, header and refusal."""

    TENANT = "tenant_concurrency"
    TIER = "tier_concurrency"
    CLUSTER = "cluster_concurrency"
    CLUSTER_TOKENS = "cluster_tokens"


class LeaseRequest(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One atomic question: may this request run there now?

    Attributes:
        cluster: None for a request that runs on no cluster of the policy: only its tenant's limit counts.
        tokens: prompt plus capped output, in tokens.
        reserved: share of the cluster (0.0 .. 1.0) each tier has reserved, by tier name.
        prompt_tokens: the part of `tokens` that has to be computed before the first of the output.
        prompt_tokens_per_second: how fast the cluster does that; None when nobody says.
        max_backlog_seconds: how much of that may lie before the request; None: it does not wait for others' prompts.
            Stores know nothing of these three.
        priority: of its tier, the smaller the better: who goes first among those who wait at several sidecars.
        waiting_since: when it joined a queue, in seconds, monotonic; None for one that does not wait.
    """

    tenant: str
    tier: str
    cluster: str | None = None
    tokens: int = 0
    tenant_limit: int | None = None
    tier_limit: int | None = None
    cluster_limit: int | None = None
    cluster_token_limit: int | None = None
    reserved: Mapping[str, float] = {}
    prompt_tokens: int = 0
    prompt_tokens_per_second: float | None = None
    max_backlog_seconds: float | None = None
    priority: int = 0
    waiting_since: float | None = None


class Lease(msgspec.Struct, frozen=True, gc=False):
    """A granted request; `id` is unique in its store for ever."""

    id: int
    request: LeaseRequest
    granted_at: float


class Refused(msgspec.Struct, frozen=True, gc=False):
    """The first scope that had no room, and when it may have some (seconds from now)."""

    scope: Scope
    retry_after_seconds: float


class Usage(msgspec.Struct, frozen=True, gc=False):
    """What is in flight on one cluster."""

    requests: int
    tokens: int


def whole_share(share: float, limit: int) -> int:
    """The whole slots or tokens of a share; 0.29 of 100 is 29, whatever floating point makes of it."""
    return int(share * limit + 1e-9)


TakeOutcome = Callable[[Lease | Refused | None], None]
"""Told what became of a question, once; None: the store is unavailable."""


@dataclass(frozen=True, slots=True)
class Claim:
    """Somebody who is next at a cluster, and how many wait in that line, this one included."""

    request: LeaseRequest
    waiting: int


class Line(Protocol):
    """Those who wait at this sidecar, as far as a store that several sidecars share has to know."""

    def clusters(self) -> Iterable[str]:
        """The clusters somebody waits for."""

    def claims(self, cluster: str) -> Sequence[Claim]:
        """Who could be next there: a few for every tier."""

    def ask_again(self) -> None:
        """Anything may have become free, unheard."""


class Store(Protocol):
    """Where leases live. Every method is one atomic step, on the event loop; none raises."""

    def acquire(self, request: LeaseRequest, answer: TakeOutcome) -> None:
        """Take a slot in every scope the request names, or in none, and tell `answer`.

        At once, before this returns, if the store knows; a remote one tells later, and in any order. Nobody can take
        a question back: the answer may come when the asker has gone, who then still has to release the lease.
        """

    def release(self, lease: Lease) -> None:
        """Give the slots back. Releasing a lease a second time changes nothing.

        Never waits, so that it takes effect here before the next request is looked at, and no cancellation can come
        between; a store that has to tell others does so afterwards.
        """

    def usage(self, cluster: str) -> Usage:
        """The latest known in-flight numbers of a cluster; never waits."""

    def elsewhere(self, cluster: str) -> int:
        """How many of the requests in `usage` are other sidecars'."""

    def in_flight(self, scope: Scope, name: str) -> int:
        """The latest known number of leases of a tenant, tier or cluster; never waits."""

    def on_release(self, listener: Callable[[Lease], None]) -> None:
        """Call `listener` after every release.

        Of a lease released by another sidecar, only the names in its request are known; one that nobody released but
        that leaves a place to others has an empty tenant and tier.
        """

    def serve_line(self, line: Line) -> None:
        """Let those who wait here have their turn among those who wait elsewhere."""

    def line_changed(self, cluster: str) -> None:
        """Somebody else is next at a cluster."""
