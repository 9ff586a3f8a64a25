"""A sidecar under load, for tests that kill it: says on standard output what it was granted and what it gives back."""

from __future__ import annotations

import asyncio
import sys
import time

from headgate.policy.model import OnStoreFailure
from headgate.redis.connection import connect
from headgate.redis.url import read_redis_url
from headgate.store import Lease, LeaseRequest, Refused
from headgate.store.redis.store import RedisStore

REQUEST = LeaseRequest(tenant="acme", tier="premium", cluster="best", tokens=10, cluster_limit=9)
ASKERS = 6


async def main(url: str) -> None:
    store = RedisStore(
        connect(read_redis_url(url)),
        on_failure=lambda: OnStoreFailure.CLOSED,
        clock=time.monotonic,
        ageing_seconds=20.0,
        lease_seconds=1.5,
    )
    await store.start()
    await asyncio.gather(*(ask_on(store) for _ in range(ASKERS)))


async def ask_on(store: RedisStore) -> None:
    while True:
        answered: asyncio.Future[Lease | Refused | None] = asyncio.get_running_loop().create_future()
        store.acquire(REQUEST, answered.set_result)
        answer = await answered
        if isinstance(answer, Lease):
            say("+")
            await asyncio.sleep(0.005)
            # Said first: whoever counts must not see another's grant before this.
            say("-")
            store.release(answer)
        await asyncio.sleep(0.005)


def say(word: str) -> None:
    sys.stdout.write(f"{word} {time.clock_gettime_ns(time.CLOCK_MONOTONIC)}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
