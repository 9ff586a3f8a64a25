"""A store behind a deadline and a breaker, and what holds for each limit while it gives no answer.

A call that ends by its deadline may have been applied or not; it is never sent again.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol

from headgate.errors import StoreUnavailable
from headgate.logs import FIELDS
from headgate.policy.model import OnStoreFailure
from headgate.redis.breaker import Breaker
from ratelimit.charges import Charge, Charging, Store, Tally, is_refused
from ratelimit.limits import Algorithm
from ratelimit.memory import MemoryStore

_PROBE_SECONDS = 1.0
_log = logging.getLogger(__name__)


class Remote(Store, Protocol):
    """A store that may be out of reach."""

    async def ping(self) -> None:
        """Ask whether it is there.

        Raises:
            StoreUnavailable: it is not.
        """


class GuardedStore:
    """Asks the store while it answers; else each limit's policy holds, or the process's for those without one.

    Args:
        local: counts what this process grants by itself.
        default: None lets the call fail, if a limit without a policy of its own is concerned.
        local_share: the part of each limit that is granted locally.
    """

    def __init__(
        self,
        store: Remote,
        local: MemoryStore,
        *,
        deadline_seconds: float,
        default: OnStoreFailure | None = None,
        local_share: float = 1.0,
    ) -> None:
        self._store = store
        self._local = local
        self._deadline_seconds = deadline_seconds
        self._default = default
        self._local_share = local_share
        self._breaker = Breaker()
        self._has_answered = False

    @property
    def is_answering(self) -> bool:
        """Whether the store gave an answer, and goes on to."""
        return self._has_answered and self._breaker.is_closed

    async def charge(self, charges: Sequence[Charge], charging: Charging = Charging.EACH) -> tuple[Tally, ...]:
        """See `Store`; raises only when a limit's policy is to fail."""
        if self._breaker.admits(time.monotonic()):
            try:
                async with asyncio.timeout(self._deadline_seconds):
                    tallies = await self._store.charge(charges, charging)
            except (StoreUnavailable, TimeoutError) as error:
                self._failed(error)
            else:
                self._succeeded()
                self._release_local(charges)
                return tallies
        return self._without(charges, charging)

    async def probe(self) -> None:
        """Find out whether the store is there, so that no request has to."""
        if self.is_answering:
            return
        try:
            async with asyncio.timeout(_PROBE_SECONDS):
                await self._store.ping()
        except (StoreUnavailable, TimeoutError) as error:
            self._failed(error)
        else:
            self._succeeded()

    async def close(self) -> None:
        """Close the store."""
        await self._store.close()

    def _failed(self, error: Exception) -> None:
        was_closed = self._breaker.is_closed
        self._breaker.failed(time.monotonic())
        if was_closed and not self._breaker.is_closed:
            _log.error("the store gives no answer", extra={FIELDS: {"error": str(error) or type(error).__name__}})

    def _succeeded(self) -> None:
        if not self._breaker.is_closed:
            _log.info("the store answers again")
        self._breaker.succeeded()
        self._has_answered = True

    def _release_local(self, charges: Sequence[Charge]) -> None:
        # A lease may have been granted here while the store was away.
        releases = [charge for charge in charges if charge.hits < 0 and charge.algorithm is Algorithm.CONCURRENCY]
        if releases and len(self._local):
            self._local.charge_now(releases)

    def _without(self, charges: Sequence[Charge], charging: Charging) -> tuple[Tally, ...]:
        policies = [charge.on_store_failure or self._default for charge in charges]
        if None in policies:
            raise StoreUnavailable("the store of the rate limits gives no answer")
        imposed = [_imposed(charge, policy) for charge, policy in zip(charges, policies, strict=True)]
        refused = is_refused(charges, [tally is not None and tally.is_over for tally in imposed])
        shares = [
            self._share(charge, looks=refused) for charge, tally in zip(charges, imposed, strict=True) if tally is None
        ]
        answers = iter(zip(shares, self._local.charge_now(shares, charging), strict=True))
        return tuple(
            _as_part(charge, *next(answers)) if tally is None else tally
            for charge, tally in zip(charges, imposed, strict=True)
        )

    def _share(self, charge: Charge, *, looks: bool) -> Charge:
        share = self._local_share if charge.local_share is None else charge.local_share
        return replace(
            charge,
            limit=max(1, int(charge.limit * share)) if charge.limit else 0,
            burst=max(1, int(charge.burst * share)) if charge.burst else 0,
            hits=min(0, charge.hits) if looks else charge.hits,
        )


def _imposed(charge: Charge, policy: OnStoreFailure | None) -> Tally | None:
    """What the policy says without counting; None when the process's own share has to be counted."""
    match policy:
        case OnStoreFailure.OPEN:
            return Tally(False, 0, max(0, charge.hits), None, is_substitute=True)
        case OnStoreFailure.CLOSED:
            attempted = charge.capacity + max(0, charge.hits)
            return Tally(charge.hits >= 0, charge.capacity, attempted, None, is_substitute=True)
        case _:
            return None


def _as_part(charge: Charge, share: Charge, tally: Tally) -> Tally:
    """The part's tally, so that as much remains of the whole limit as remains of the part."""
    elsewhere = charge.capacity - share.capacity
    count, attempted = tally.count + elsewhere, tally.attempted + elsewhere
    return replace(tally, count=count, attempted=attempted, is_substitute=True)
