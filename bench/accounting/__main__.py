"""`python -m bench.accounting`: run everything, print the figures, write `build/bench/accounting.json`."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import Annotated

import typer
from rich.console import Console

from bench.accounting.batches import ENTRIES_A_BATCH, batches
from bench.accounting.stage import Accounting, accounting, decision
from bench.command import benchmark
from bench.machine import machine
from bench.resources import cpu_seconds, resident_bytes
from bench.result import write_result
from bench.spread import Spread
from bench.transport.edge import EXT_PROC
from bench.transport.stage import Stage, Subject
from bench.transport.trial import Loop, Plan, run_trial
from headgate_cli.stack import Announce

_TENANTS = 1000
_BATCHES = 1000
_SCRAPES = 20
_DECISIONS = Plan(seconds=2.0, rounds=1, rate_per_second=100.0, connections=16)


def main(
    rounds: Annotated[int, typer.Option(min=1, help="Rounds, in which each is measured once.")] = 5,
    records: Annotated[int, typer.Option(min=100_000, help="Records for the memory's sake.")] = 1_000_000,
) -> None:
    """Measure what accounting for a finished request costs, against deciding on one."""
    console = Console()
    with benchmark("accounting", console) as announce:
        figures = _measure(rounds, records, announce)
    for name, value in figures.items():
        if isinstance(value, Spread):
            console.print(f"{name:44} {value.text(2)}", highlight=False)
    flat = {name: value.median if isinstance(value, Spread) else value for name, value in figures.items()}
    spread = {name: value for name, value in figures.items() if isinstance(value, Spread)}
    console.print(f"written to {write_result('accounting', {**flat, 'spread': spread, 'machine': machine()})}")


def _measure(rounds: int, records: int, announce: Announce) -> dict[str, object]:
    sent = list(batches(_TENANTS, _BATCHES))
    figures: dict[str, object] = {}
    with decision() as stage, accounting(1.0) as whole, accounting(0.01) as sampled:
        for service in (whole, sampled):
            service.account(sent)
        run_trial(stage, _DECISIONS, Subject.DECISION, EXT_PROC, Loop.CLOSED, seed=0)
        announce("rounds: deciding, accounting with a log line each, accounting with one in a hundred")
        trials = list(_rounds(rounds, stage, whole, sampled, sent))
        figures["decision_cpu_us"] = Spread.of(trial[0] for trial in trials)
        figures["accounting_cpu_us"] = Spread.of(trial[1] for trial in trials)
        figures["accounting_cpu_us_sampled_log"] = Spread.of(trial[2] for trial in trials)
        # Each round's ratio is of what was measured within the same seconds.
        figures["cpu_ratio_to_decision"] = Spread.of(trial[1] / trial[0] for trial in trials)
        figures["cpu_ratio_to_decision_sampled_log"] = Spread.of(trial[2] / trial[0] for trial in trials)
        announce("scraping")
        scrapes = [_scrape_ms(whole) for _ in range(_SCRAPES)]
        figures["metrics_scrape_ms_1000_tenants"] = Spread.of(wall for wall, _ in scrapes)
        figures["metrics_scrape_cpu_ms"] = Spread.of(cpu for _, cpu in scrapes)
        figures["metrics_scrape_bytes"] = len(whole.scrape())
        announce(f"{records:,} records")
        figures["memory"] = _memory(sampled, sent, records)
    announce("")
    print("memory", figures["memory"])
    return figures


def _rounds(
    rounds: int, stage: Stage, whole: Accounting, sampled: Accounting, sent: Sequence[bytes]
) -> Iterator[tuple[float, float, float]]:
    """CPU microseconds a decision, a record, and a record with one log line in a hundred."""
    for number in range(rounds):
        decided = run_trial(stage, _DECISIONS, Subject.DECISION, EXT_PROC, Loop.CLOSED, seed=number)
        yield decided.cpu_us, _cpu_us(whole, sent), _cpu_us(sampled, sent)


def _cpu_us(service: Accounting, sent: Sequence[bytes]) -> float:
    before = cpu_seconds(service.pid)
    service.account(sent)
    return (cpu_seconds(service.pid) - before) / (len(sent) * ENTRIES_A_BATCH) * 1e6


def _scrape_ms(service: Accounting) -> tuple[float, float]:
    """A scrape as its client sees it, and the CPU time it takes in the service."""
    began_at, before = time.perf_counter(), cpu_seconds(service.pid)
    service.scrape()
    return (time.perf_counter() - began_at) * 1e3, (cpu_seconds(service.pid) - before) * 1e3


def _memory(service: Accounting, sent: Sequence[bytes], records: int) -> dict[str, int]:
    """Resident bytes before and after that many records more; every tenant has been seen by then."""
    before = resident_bytes(service.pid)
    times = -(-records // (len(sent) * ENTRIES_A_BATCH))
    for _ in range(times):
        service.account(sent)
    after = resident_bytes(service.pid)
    return {
        "records": times * len(sent) * ENTRIES_A_BATCH,
        "resident_bytes_before": before,
        "resident_bytes_after": after,
        "growth_bytes": after - before,
    }


if __name__ == "__main__":
    typer.run(main)
