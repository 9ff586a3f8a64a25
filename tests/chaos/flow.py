"""Clients that come without a pause: each one's place is taken by the next."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Sequence

from tests.chaos.crowd import Visit
from tests.chaos.stage import Stage, script, until

_BREATH_SECONDS = 0.02


class Flow:
    """Keeps `at_a_time` requests open, shared out over Envoys, from `start` to `stop`."""

    def __init__(self, stage: Stage, ports: Sequence[int], tenants: Sequence[str], at_a_time: int) -> None:
        self._stage = stage
        self._ports = ports
        self._tenants = tenants
        self._at_a_time = at_a_time
        self._numbers = itertools.count(100_000)
        self._tasks: list[asyncio.Task[None]] = []
        self._is_over = False
        self.visits: list[Visit] = []

    def start(self) -> None:
        """Begin, or begin again."""
        self._is_over = False
        self._tasks = [asyncio.create_task(self._come_on()) for _ in range(self._at_a_time)]

    async def stop(self) -> None:
        """Let nobody come any more, and those who are here finish."""
        self._is_over = True
        await asyncio.gather(*self._tasks)

    async def until_served(self, count: int) -> None:
        """Wait until so many of those who come from now on have been served."""
        first = len(self.visits)
        await until(
            lambda: sum(visit.is_served for visit in self.visits[first:]) >= count, f"{count} more have been served"
        )

    async def _come_on(self) -> None:
        while not self._is_over:
            number = next(self._numbers)
            tenant = self._tenants[number % len(self._tenants)]
            visit = Visit(script(number, tenant, "premium", pace_seconds=0.01), tenant)
            self.visits.append(visit)
            await self._stage.send(self._ports[number % len(self._ports)], [visit])
            await visit.over
            if not visit.is_served:
                # Told no: as any client, it does not come again at once.
                await asyncio.sleep(_BREATH_SECONDS)
