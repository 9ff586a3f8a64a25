"""More clients than a cluster can run at once, each of whom asks again as soon as it has its answer."""

from __future__ import annotations

import asyncio
import random
import time
from dataclasses import dataclass

from bench.overload.question import question
from bench.overload.response import Response
from bench.overload.workload import Arrival

PROMPT_TOKENS = (20, 200)
ANSWER_TOKENS = (10, 40)
_BREATH_SECONDS = 0.1
_READ_BYTES = 65536


@dataclass(frozen=True)
class Answered:
    """What a client got."""

    at: float
    status: int
    is_whole: bool


class Pressure:
    """Clients on connections of their own, from `start` to `stop`."""

    def __init__(self, port: int, tenant: str, clients: int, seed: int) -> None:
        self._port = port
        self._tenant = tenant
        self._clients = clients
        self._chance = random.Random(seed)
        self._tasks: list[asyncio.Task[None]] = []
        self._is_over = False
        self._asked = 0
        self.answers: list[Answered] = []

    def start(self) -> None:
        """Begin."""
        self._tasks = [asyncio.create_task(self._come_on()) for _ in range(self._clients)]

    async def stop(self) -> None:
        """Nobody asks any more, and those who have asked get their answers."""
        self._is_over = True
        await asyncio.gather(*self._tasks)

    def served_since(self, moment: float) -> int:
        """How many had a whole answer since."""
        return sum(answer.is_whole and answer.at >= moment for answer in self.answers)

    async def _come_on(self) -> None:
        while not self._is_over:
            answer = await self._ask()
            self.answers.append(answer)
            if not answer.is_whole:
                # As any client that was told no, or cut off: not again at once.
                await asyncio.sleep(_BREATH_SECONDS)

    async def _ask(self) -> Answered:
        self._asked += 1
        prompt_tokens, answer_tokens = self._chance.randint(*PROMPT_TOKENS), self._chance.randint(*ANSWER_TOKENS)
        arrival = Arrival(
            number=self._asked,
            due_seconds=0.0,
            tier="premium",
            tenant=self._tenant,
            prompt_tokens=prompt_tokens,
            answer_tokens=answer_tokens,
            max_tokens=ANSWER_TOKENS[1],
            patience_seconds=0.0,
        )
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        response = Response()
        try:
            writer.write(question(arrival))
            while not response.is_over and (data := await reader.read(_READ_BYTES)):
                response.receive(data)
        except ConnectionError:
            pass  # it was cut off, which shows in what has come
        finally:
            writer.close()
        return Answered(time.monotonic(), response.status, response.status == 200 and response.is_over)
