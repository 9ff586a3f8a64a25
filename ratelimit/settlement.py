"""Token budgets meet reality: what a request was charged before it ran becomes what it used, once it has ended.

Charges are remembered in this process, so settlement works where requests are charged and accounted for together.
A correction is sent to the store once; one that finds no store is lost, and the estimate stays.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from headgate.errors import StoreUnavailable
from headgate.record import RequestRecord
from ratelimit.charges import Charge, Store, Tally
from ratelimit.limiter import Plan
from ratelimit.limits import RateLimitRequest
from ratelimit.open_charges import OpenCharges, open_charge, used_tokens

_MAX_WAITING = 10_000
_log = logging.getLogger(__name__)


@dataclass(slots=True)
class SettledTokens:
    """Tokens, since the start."""

    given_back: int = 0
    charged: int = 0


class Settlement:
    """A part of the process: corrections go to the store one by one, in a task of its own.

    Args:
        clock: unix seconds.
        cached_token_weight: of a tenant; how much of a prompt token counts that was found in a cache.
    """

    def __init__(
        self, store: Store, clock: Callable[[], float], cached_token_weight: Callable[[str], float] = lambda _: 1.0
    ) -> None:
        self.settled = SettledTokens()
        self._store = store
        self._clock = clock
        self._cached_token_weight = cached_token_weight
        self._open = OpenCharges()
        self._due: deque[Charge] = deque(maxlen=_MAX_WAITING)
        self._is_due = asyncio.Event()
        self._is_applying = False
        self._task: asyncio.Task[None] | None = None

    @property
    def is_busy(self) -> bool:
        """Whether corrections are on their way."""
        return bool(self._due) or self._is_applying

    def charged(
        self, request: RateLimitRequest, plan: Plan, charges: Sequence[Charge], tallies: Sequence[Tally]
    ) -> None:
        """Remember what an admitted request was charged."""
        now = self._clock()
        made = open_charge(request, plan, charges, tallies, now)
        if made is not None:
            self._open.add(made, now)

    def ended(self, record: RequestRecord) -> None:
        """Settle a finished request, if its charge is remembered and its window still runs."""
        used = used_tokens(record, self._cached_token_weight(record.tenant))
        correction = self._open.take(record, used, self._clock())
        if correction is not None:
            self._due.append(correction)
            self._is_due.set()

    async def start(self) -> str:
        """Begin; there is no address to return."""
        self._task = asyncio.create_task(self._settle())
        return ""

    async def stop(self) -> None:
        """End; what is still due keeps its estimate."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def _settle(self) -> None:
        while True:
            await self._is_due.wait()
            self._is_due.clear()
            while self._due:
                self._is_applying = True
                await self._apply(self._due.popleft())
            self._is_applying = False

    async def _apply(self, correction: Charge) -> None:
        try:
            (tally,) = await self._store.charge([correction])
        except StoreUnavailable:
            return
        except Exception:  # noqa: BLE001  (the outermost frame of the task: one bad charge keeps no other)
            _log.exception("a charge could not be settled")
            return
        if tally.is_substitute:
            return
        if correction.hits < 0:
            self.settled.given_back -= correction.hits
        else:
            self.settled.charged += correction.hits
