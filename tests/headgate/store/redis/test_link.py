"""Calls to the script: which one is carried out, and what happens when there is no answer."""

from __future__ import annotations

import time
from typing import Any

import pytest
from msgspec.structs import replace

from headgate.errors import StoreUnavailable
from headgate.redis.connection import connect, disconnect
from headgate.redis.settings import RedisSettings
from headgate.store.redis.call import Call, Granted, Question, Recovering
from headgate.store.redis.link import Link

QUESTION = Question(id="1", tenant="acme", tier="premium", cluster="best", cluster_limit=1)
CALL = Call(
    sidecar="one",
    number=1,
    new_birth="first",
    lease_us=10_000_000,
    claim_us=2_000_000,
    ageing_us=20_000_000,
    recovery_ms=60_000,
)


@pytest.fixture
async def link(redis_port: int, redis_is_empty: None) -> Any:
    client = connect(RedisSettings(addresses=(("127.0.0.1", redis_port),)))
    yield Link(client, time.monotonic, 5.0, lambda _seconds, _outcome: None)
    await disconnect(client)


async def test_a_call_that_arrives_after_a_later_one_is_not_carried_out(link: Link, ledger: Any) -> None:
    await link.send(replace(CALL, number=2))

    with pytest.raises(StoreUnavailable, match="a later call"):
        await link.send(replace(CALL, number=1, acquire=[QUESTION]))

    assert await ledger.leases() == 0


async def test_a_redis_that_lost_its_data_grants_nothing_until_all_was_brought_back(link: Link, ledger: Any) -> None:
    first = await link.send(replace(CALL, acquire=[QUESTION]))
    assert (first.birth, first.answers) == ("first", [Granted()])
    await ledger.client.flushall()

    lost = await link.send(replace(CALL, number=2, birth="first", new_birth="second", acquire=[QUESTION]))
    assert (lost.is_lost, lost.birth, lost.answers) == (True, "second", ())
    newcomer = replace(CALL, sidecar="two", acquire=[replace(QUESTION, id="2")])
    assert (await link.send(newcomer)).answers == [Recovering()]
    back = await link.send(replace(CALL, number=3, birth="second", announce=[QUESTION]))

    assert (back.is_recovering, back.counts["cbest"]) == (True, 1)


async def test_a_lease_is_brought_back_once(link: Link, ledger: Any) -> None:
    for number in (1, 2):
        await link.send(replace(CALL, number=number, announce=[QUESTION]))

    assert (await ledger.leases(), await ledger.count("cbest")) == (1, 1)


async def test_a_lease_that_is_renewed_and_not_there_is_named(link: Link) -> None:
    reply = await link.send(replace(CALL, acquire=[QUESTION], renew=["1", "2"]))

    assert reply.missing == ["1", "2"]
    assert (await link.send(replace(CALL, number=2, renew=["1", "2"]))).missing == ["2"]


async def test_three_calls_without_an_answer_are_enough(redis_server: Any) -> None:
    seen: list[str] = []
    client = connect(RedisSettings(addresses=(("127.0.0.1", redis_server.port),)))
    link = Link(client, time.monotonic, 5.0, lambda _seconds, outcome: seen.append(outcome))

    for number in (1, 2, 3):
        assert link.admits()
        with pytest.raises(StoreUnavailable):
            await link.send(replace(CALL, number=number))

    assert seen == ["error"] * 3
    assert (link.is_closed, link.admits()) == (False, False)
    redis_server.start()
    link.forgive()
    await link.send(replace(CALL, number=4))
    await disconnect(client)
