"""One place that tells how a cluster's servers are, asked again and again; keeps the last answer and its age."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from extproc.servers.page import NobodyThere, NoReading
from extproc.servers.reading import Reading
from headgate.logs import FIELDS

_log = logging.getLogger("headgate.servers")

Ask = Callable[[], Awaitable[Reading]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """How often to ask, how long to wait for an answer, how old one may be and still count; all in seconds."""

    interval_seconds: float = 1.0
    timeout_seconds: float = 1.0
    stale_seconds: float = 5.0


class Watch:
    """Runs from `start` to `stop`, on the event loop; a place that does not answer delays nobody else.

    Args:
        asked: told after every question, whatever came of it.
        failed: told of every one that got no answer.
    """

    def __init__(
        self,
        cluster: str,
        place: str,
        ask: Ask,
        timing: Timing,
        clock: Callable[[], float],
        *,
        asked: Callable[[], None],
        failed: Callable[[], None],
    ) -> None:
        self.cluster = cluster
        self.reading: Reading | None = None
        self._place = place
        self._ask = ask
        self._timing = timing
        self._clock = clock
        self._asked = asked
        self._failed = failed
        self._heard_at = clock()
        self._missed_at: float | None = None
        self._is_failing = False
        self._task: asyncio.Task[None] | None = None

    def start(self, first_pause_seconds: float) -> None:
        """Ask at once, then after `first_pause_seconds`, then at the interval: so that not all ask together."""
        self._task = asyncio.get_running_loop().create_task(self._keep_asking(first_pause_seconds))

    async def stop(self) -> None:
        """Ask no more."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    @property
    def age_seconds(self) -> float:
        """Since the last answer; since the beginning when there was none."""
        return self._clock() - self._heard_at

    @property
    def fresh(self) -> Reading | None:
        """The last answer, unless it is too old to count."""
        return self.reading if self.age_seconds <= self._timing.stale_seconds else None

    @property
    def is_nobody_there(self) -> bool:
        """Whether there was no server when last asked, unless that is too long ago to count."""
        return self._missed_at is not None and self._clock() - self._missed_at <= self._timing.stale_seconds

    async def _keep_asking(self, pause_seconds: float) -> None:
        while True:
            await self._look()
            await asyncio.sleep(pause_seconds)
            pause_seconds = self._timing.interval_seconds

    async def _look(self) -> None:
        missed_at, problem = None, None
        try:
            async with asyncio.timeout(self._timing.timeout_seconds):
                self.reading = await self._ask()
            self._heard_at = self._clock()
        except TimeoutError:
            problem = f"no answer within {self._timing.timeout_seconds:g} s"
        except NobodyThere as error:
            # What it said before does not hold for a server that is gone.
            self.reading, missed_at, problem = None, self._clock(), str(error)
        except NoReading as error:
            problem = str(error)
        except Exception as error:  # noqa: BLE001  (the outermost frame of a watch: no page may end it)
            problem = repr(error)
        self._missed_at = missed_at
        self._asked()
        self._note(problem)

    def _note(self, problem: str | None) -> None:
        """Count every failure; log only the first of a row, and its end."""
        if problem is not None:
            self._failed()
        if self._is_failing == (problem is not None):
            return
        self._is_failing = problem is not None
        fields = {"cluster": self.cluster, "place": self._place, "problem": problem}
        _log.warning("a model server does not say how it is" if problem else "it does again", extra={FIELDS: fields})
