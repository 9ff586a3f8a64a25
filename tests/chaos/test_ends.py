"""Every way a request can end gives its slot back, once, behind a real Envoy; the cluster is full each time."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest

from tests.chaos.crowd import Leaving, Visit, all_over
from tests.chaos.load import LIMIT, POLICY, visits
from tests.chaos.script import Act
from tests.chaos.stage import Shape, Sidecar, Stage, script, until

DECISIONS = "headgate_decisions_total"
RETRY_ON = "connect-failure,refused-stream,reset,5xx"


@pytest.fixture(scope="module")
def everything(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Stage, Sidecar, int]]:
    stage = Stage(tmp_path_factory.mktemp("ends"), Shape(POLICY, retry_on=RETRY_ON, idle_seconds=1.0))
    try:
        cast = stage.start()
        yield stage, cast.sidecar, cast.port
    finally:
        stage.close()


@pytest.fixture
async def running(everything: tuple[Stage, Sidecar, int]) -> AsyncIterator[tuple[Stage, Sidecar, int]]:
    stage, sidecar, _ = everything
    await stage.record("open")
    await stage.record("forget")
    yield everything
    await stage.hang_up()
    await until(sidecar.holds_nothing, "all is given back")


def acting(first: int, *acts: Act) -> list[Visit]:
    return [Visit(script(first + number, "acme", "premium", acts=acts), "acme") for number in range(LIMIT)]


async def _serves_the_limit(stage: Stage, port: int, first: int) -> None:
    """All slots are free, and no more than there are."""
    coming = visits(LIMIT + 10, first=first)
    await stage.record("close")
    await stage.send(port, coming)
    await until(lambda: _runs(stage, LIMIT), "the cluster is full")
    await stage.record("open")
    await all_over(coming)
    assert all(visit.is_served for visit in coming)
    assert (await stage.record()).most["cluster:big"] == LIMIT


async def _runs(stage: Stage, count: int) -> bool:
    return await stage.running("cluster:big") == count


@pytest.mark.parametrize("leaving", [leaving for leaving in Leaving if leaving is not Leaving.NEVER])
async def test_a_client_that_leaves_gives_its_slot_back(leaving: Leaving, running: tuple[Stage, Sidecar, int]) -> None:
    stage, sidecar, port = running
    first = 1000 * list(Leaving).index(leaving)
    coming = [Visit(script(first + number, "acme", "premium"), "acme", leaving) for number in range(LIMIT)]
    if leaving is Leaving.WHEN_TOLD:
        await stage.record("close")
    await stage.send(port, coming)
    if leaving is Leaving.WHEN_TOLD:
        await until(lambda: _runs(stage, LIMIT), "the cluster is full")
        for visit in coming:
            visit.leave()

    await all_over(coming)
    await until(sidecar.holds_nothing, "all is given back")

    assert all(visit.has_left for visit in coming)
    await _serves_the_limit(stage, port, first + 500)


async def test_clients_that_leave_the_line_make_way_for_those_behind(running: tuple[Stage, Sidecar, int]) -> None:
    stage, sidecar, port = running
    served = visits(LIMIT, first=20_000)
    leaving, behind = visits(LIMIT, first=21_000), visits(LIMIT, first=22_000)
    await stage.record("close")
    for number, coming in enumerate([served, leaving, behind]):
        await stage.send(port, coming)
        await until(lambda number=number: _waits(sidecar, number * LIMIT), "they stand in line")

    for visit in leaving:
        visit.leave()
    await until(lambda: _waits(sidecar, LIMIT), "they are gone at once")
    await stage.record("open")
    await all_over([*served, *behind])

    assert all(visit.is_served for visit in [*served, *behind])
    record = await stage.record()
    assert not {visit.script.request for visit in leaving} & set(record.attempts)
    assert record.most["cluster:big"] == LIMIT


async def _waits(sidecar: Sidecar, count: int) -> bool:
    return await sidecar.total("headgate_queue_depth") == count


@pytest.mark.parametrize(
    ("acts", "status", "attempts"),
    [
        ((Act.FAIL,), 503, 3),
        ((Act.RESET,), 503, 3),
        ((Act.CUT,), 200, 1),
        ((Act.FALL_SILENT,), 200, 1),
        ((Act.FAIL, Act.RESET, Act.ANSWER), 200, 3),
    ],
    ids=lambda value: "_".join(value) if isinstance(value, tuple) else str(value),
)
async def test_however_the_model_ends_it_the_slot_is_one_and_comes_back(
    acts: tuple[Act, ...], status: int, attempts: int, running: tuple[Stage, Sidecar, int]
) -> None:
    stage, sidecar, port = running
    first = 30_000 + 1000 * sum(list(Act).index(act) * 10**at for at, act in enumerate(acts))
    coming = acting(first, *acts)
    decided = await sidecar.total(DECISIONS)

    await stage.send(port, coming)
    await all_over(coming)
    await until(sidecar.holds_nothing, "all is given back")

    record = await stage.record()
    assert {visit.status for visit in coming} == {status}
    assert {visit.is_served for visit in coming} == {acts[-1] is Act.ANSWER}
    # A retry runs under the decision and the lease of the attempt before: never two at a time.
    assert await sidecar.total(DECISIONS) == decided + LIMIT
    assert {record.attempts[visit.script.request] for visit in coming} == {attempts}
    assert {record.most[f"request:{visit.script.request}"] for visit in coming} == {1}
    assert record.most["cluster:big"] <= LIMIT
    await _serves_the_limit(stage, port, first + 500)
