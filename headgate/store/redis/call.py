"""What is said to the script and what it says: one call carries everything of one turn. See `step.lua`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from headgate.store import LeaseRequest, Refused, Scope, whole_share

MAX_COUNTED_WAITERS = 64
"""Of one claim: more than a sidecar is offered at once."""


class Question(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """A request as the script reads it: a question, a lease brought along, or a claim.

    Attributes:
        id: of the lease it is or becomes.
        tag: tells the same waiter in questions and claims, whatever limits they name; None for one that does not wait.
        waited: seconds since it joined its queue, or since a lease was granted.
        count: how many wait in a claim's line.
        reserved: (tier, slots, tokens) of the other tiers.
    """

    id: str = ""
    tenant: str
    tier: str
    cluster: str | None = None
    tokens: int | None = None
    tenant_limit: int | None = None
    tier_limit: int | None = None
    cluster_limit: int | None = None
    cluster_token_limit: int | None = None
    reserved: Sequence[tuple[str, int, int]] = ()
    priority: int = 0
    tag: float | None = None
    waited: float = 0.0
    count: int = 1


class Call(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """Everything one sidecar has to say at once.

    Attributes:
        number: greater than in every earlier call of this sidecar.
        birth: the life of Redis in which this sidecar's leases were told; None before the first answer.
        new_birth: what to call this life if it has no name yet.
        claims: in place of those told before, by cluster.
        waits: whether any claim of this sidecar stands.
        refreshes: asks whether a claim could be served now.
        look: fields of the in-flight counts that are to be in the answer, besides those the call is about.
    """

    sidecar: str
    number: int
    birth: str | None = None
    new_birth: str
    lease_us: int
    claim_us: int
    ageing_us: int
    recovery_ms: int
    release: Sequence[str] = ()
    renew: Sequence[str] = ()
    announce: Sequence[Question] = ()
    acquire: Sequence[Question] = ()
    claims: dict[str, list[Question]] = {}
    waits: bool = False
    refreshes: bool = False
    leaves: bool = False
    look: Sequence[str] = ()


class Granted(msgspec.Struct, frozen=True):
    """Yes."""


class Recovering(msgspec.Struct, frozen=True):
    """Redis lost its data; the sidecars are bringing back what they hold."""


class Behind(msgspec.Struct, frozen=True):
    """No, for the sake of one that goes first elsewhere and is given up after `seconds` if it takes nothing."""

    refused: Refused
    seconds: float


Answer = Granted | Recovering | Behind | Refused


class Reply(msgspec.Struct, frozen=True, kw_only=True):
    """The script's answer.

    Attributes:
        is_lost: this Redis does not know what was told before; nothing of the call was done.
        sidecars: how many are alive.
        answers: in the order of the questions.
        missing: leases that were to be renewed and are not there.
        reaped: (tenant, tier, cluster) of leases that expired.
        counts: in flight, by field.
        is_open: a claim of this sidecar could be served now.
        is_recovering: Redis lost its data; not every sidecar has been heard of yet.
    """

    is_lost: bool
    birth: str
    sidecars: int = 1
    answers: Sequence[Answer] = ()
    missing: Sequence[str] = ()
    reaped: Sequence[tuple[str, str, str]] = ()
    counts: dict[str, int] = {}
    is_open: bool = False
    is_recovering: bool = False


def question(request: LeaseRequest, now: float, lease_id: str = "", count: int = 1) -> Question:
    """`now` in seconds, by the clock of `waiting_since`."""
    since = request.waiting_since
    return Question(
        id=lease_id,
        tenant=request.tenant,
        tier=request.tier,
        cluster=request.cluster,
        tokens=request.tokens or None,
        tenant_limit=request.tenant_limit,
        tier_limit=request.tier_limit,
        cluster_limit=request.cluster_limit,
        cluster_token_limit=request.cluster_token_limit,
        reserved=_reserved(request) if request.cluster is not None and request.reserved else (),
        priority=request.priority,
        tag=since,
        waited=0.0 if since is None else max(0.0, now - since),
        count=min(count, MAX_COUNTED_WAITERS),
    )


def held(request: LeaseRequest, lease_id: str, seconds: float) -> Question:
    """A lease brought along that has been held so long."""
    return Question(
        id=lease_id,
        tenant=request.tenant,
        tier=request.tier,
        cluster=request.cluster,
        tokens=request.tokens or None,
        waited=max(0.0, seconds),
    )


def read_reply(reply: Sequence[Any]) -> Reply | None:
    """The script's answer, as redis-py gives it; None for a call that came too late to be looked at."""
    if reply[0] == b"late":
        return None
    if reply[0] == b"lost":
        return Reply(is_lost=True, birth=reply[1].decode())
    _, birth, sidecars, answers, missing, reaped, counts, is_open, is_recovering = reply
    return Reply(
        is_lost=False,
        birth=birth.decode(),
        sidecars=sidecars,
        answers=[_answer(*parts) for parts in answers],
        missing=[lease_id.decode() for lease_id in missing],
        reaped=[_names(*parts) for parts in reaped],
        counts={counts[at].decode(): counts[at + 1] for at in range(0, len(counts), 2)},
        is_open=bool(is_open),
        is_recovering=bool(is_recovering),
    )


def _answer(word: bytes, retry_after: bytes = b"0", behind_us: int = 0) -> Answer:
    if word == b"granted":
        return Granted()
    if word == b"recovering":
        return Recovering()
    refused = Refused(Scope(word.decode()), float(retry_after))
    return Behind(refused, behind_us / 1e6) if behind_us else refused


def _names(tenant: bytes, tier: bytes, cluster: bytes) -> tuple[str, str, str]:
    return tenant.decode(), tier.decode(), cluster.decode()


def _reserved(request: LeaseRequest) -> list[tuple[str, int, int]]:
    slots, tokens = request.cluster_limit or 0, request.cluster_token_limit or 0
    return [
        (tier, whole_share(share, slots), whole_share(share, tokens))
        for tier, share in request.reserved.items()
        if tier != request.tier
    ]
