"""What is printed, written and drawn."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
from rich.console import Console

from bench.overload.cell import Cell
from bench.overload.details import details
from bench.overload.outcome import Ending, Outcome, Window
from bench.overload.plots import NoPlots, draw, series
from bench.overload.record import ReplicaRecord, SequenceRecord
from bench.overload.score import SystemScore, TierScore
from bench.overload.systems import System
from bench.overload.table import show
from bench.result import write_result

SLOS = {"premium": 2.0}


def score(attainment: float = 1.0, refusal_p99_ms: float | None = 3.0, ratio: float = 0.97) -> SystemScore:
    tier = TierScore(served=1.0, ttft_p50_s=0.2, ttft_p95_s=0.5, ttft_p99_s=None, slo_attainment=attainment)
    return SystemScore(
        tiers={"premium": tier},
        goodput_tokens_per_s=1000.0,
        goodput_ratio_to_1x=ratio,
        utilisation=0.9,
        refusal_p99_ms=refusal_p99_ms,
        jain=1.0,
    )


def shown(headgate: SystemScore) -> str:
    console = Console(record=True, width=120)
    show(console, {"2": {System.HEADGATE: headgate}}, {}, SLOS)
    return console.export_text()


def test_the_goals_are_judged_one_by_one() -> None:
    assert shown(score()).count("yes") == 5
    missed = shown(score(attainment=0.98, refusal_p99_ms=10.1, ratio=0.94))
    assert (missed.count("yes"), missed.count("NO")) == (2, 3)


def test_goals_are_only_named_where_headgate_ran_at_twice_the_capacity() -> None:
    console = Console(record=True, width=120)
    show(console, {"4": {System.HEADGATE: score()}, "2": {System.LEAST_REQUEST: score()}}, {}, SLOS)
    assert "goals" not in console.export_text()


def test_the_file_has_the_promised_shape(tmp_path: Path) -> None:
    path = write_result("overload", {"2": {System.HEADGATE: score()}}, tmp_path)
    system = msgspec.json.decode(path.read_bytes())["2"]["headgate"]
    assert list(system) == [
        "tiers",
        "goodput_tokens_per_s",
        "goodput_ratio_to_1x",
        "utilisation",
        "refusal_p99_ms",
        "jain",
    ]
    assert list(system["tiers"]["premium"]) == ["served", "ttft_p50_s", "ttft_p95_s", "ttft_p99_s", "slo_attainment"]


def test_a_line_of_a_plot_leaves_out_what_was_not_measured() -> None:
    scores = {"1": {"a": score(refusal_p99_ms=None)}, "2": {"a": score(), "b": score(refusal_p99_ms=5.0)}}
    assert series(scores, lambda one: one.refusal_p99_ms) == {"a": {2.0: 3.0}, "b": {2.0: 5.0}}


def test_without_matplotlib_the_message_says_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(NoPlots, match="matplotlib is not installed"):
        draw({"2": {"headgate": score()}}, SLOS, tmp_path)


def test_without_the_trace_the_benchmark_fails_and_says_so(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "bench.overload", "--trace", str(tmp_path / "none.csv")]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 1
    assert "Azure LLM inference trace" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_details_say_where_a_request_waited_and_why_one_was_refused() -> None:
    served = Outcome(
        number=1,
        tier="premium",
        tenant="acme",
        due_seconds=11.0,
        prompt_tokens=10,
        ending=Ending.COMPLETED,
        first_token_seconds=13.0,
        progress=[(13.0, 1), (14.0, 5)],
    )
    told_no = Outcome(
        number=2,
        tier="premium",
        tenant="acme",
        due_seconds=12.0,
        prompt_tokens=10,
        ending=Ending.REFUSED,
        reason="queue_full",
        answered_wall_ms=2.5,
    )
    sequence = SequenceRecord(
        number=1,
        prompt_tokens=10,
        produced_tokens=5,
        is_complete=True,
        arrived_at=11.5,
        admitted_at=12.25,
        first_token_at=13.0,
        ended_at=14.0,
    )
    record = ReplicaRecord(slots=1, max_concurrency=1, tokens_served=8, read_at=30.0, sequences=[sequence])
    cell = Cell(load=2.0, system=System.HEADGATE, outcomes=[served, told_no], records=[record], cpu_cores={})
    why = details(cell, Window(10.0, 20.0))
    tier = why.tiers["premium"]
    waits = (tier.before_engine_s, tier.engine_queue_s, tier.prefill_s)
    assert [wait.p50 for wait in waits if wait] == [0.5, 0.75, 0.75]
    assert tier.endings == {"completed": 1, "refused": 1}
    refusals = why.refusals_ms["queue_full"]
    assert refusals is not None
    assert (refusals.count, refusals.p99) == (1, 2.5)
    assert why.served_by_tenant == {"acme": (2, 1)}
    assert why.tokens_wasted == 3
