"""What bench.transport does besides measuring: its services, its client, its arithmetic."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator

import pytest

from bench.percentiles import Percentiles
from bench.transport.edge import EXT_PROC, RATE_LIMIT
from bench.transport.held_streams import hold_streams
from bench.transport.noop import noop_services
from bench.transport.stage import Subject
from bench.transport.summary import lines, summarize
from bench.transport.trial import Loop, Trial
from headgate.transport.lean import LeanServer


@pytest.fixture
async def address() -> AsyncIterator[str]:
    server = LeanServer("127.0.0.1:0", noop_services(), max_message_bytes=1 << 20)
    yield await server.start()
    await server.drain(1)


async def test_streams_are_held_open_until_all_have_been_answered(address: str) -> None:
    held = await asyncio.to_thread(hold_streams, address, os.getpid(), 300, 0.0001)

    assert held.streams == 300


def trial(subject: Subject, cpu_us: float, kind: str = EXT_PROC, loop: Loop = Loop.CLOSED) -> Trial:
    return Trial(
        subject=subject,
        kind=kind,
        loop=loop,
        requests_per_second=1000.0,
        cpu_us=cpu_us,
        latency=Percentiles.of_seconds([0.001]),
    )


def one_round(lean: float, *, has_go: bool) -> list[Trial]:
    subjects = [(Subject.LEAN, lean), (Subject.GRPCIO, 400.0), (Subject.DECISION, 90.0)]
    subjects += [(Subject.GRPCGO, 60.0)] if has_go else []
    streams = [trial(subject, cpu, loop=loop) for loop in Loop for subject, cpu in subjects]
    return streams + [trial(subject, cpu, RATE_LIMIT) for subject, cpu in subjects if subject != Subject.DECISION]


def test_ratios_are_medians_of_the_rounds() -> None:
    summary = summarize([one_round(lean, has_go=True) for lean in (20.0, 40.0, 30.0)])

    assert summary.noop_cpu_ratio_lean_over_grpcio.median == pytest.approx(30 / 400)
    assert summary.noop_cpu_ratio_lean_over_grpcgo is not None
    assert summary.noop_cpu_ratio_lean_over_grpcgo.median == pytest.approx(30 / 60)
    assert summary.decision_cpu_ratio_over_grpcgo_noop is not None
    assert summary.decision_cpu_ratio_over_grpcgo_noop.median == pytest.approx(1.5)
    assert summary.open_decision_cpu_ratio_over_grpcgo_noop is not None
    assert summary.open_decision_cpu_ratio_over_grpcgo_noop.median == pytest.approx(1.5)


def test_without_the_go_peer_its_ratios_are_null() -> None:
    rounds = [one_round(20.0, has_go=False)]
    summary = summarize(rounds)

    assert summary.noop_cpu_ratio_lean_over_grpcgo is None
    assert summary.decision_cpu_ratio_over_grpcgo_noop is None
    assert summary.open_decision_cpu_ratio_over_grpcgo_noop is None
    assert summary.unary_cpu_ratio_lean_over_grpcgo is None
    assert [line.cpu_us.median for line in lines(rounds)] == [one.cpu_us for one in rounds[0]]
