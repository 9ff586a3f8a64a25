"""`python -m bench.inspect`: parse the options, measure, show and write the figures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from bench.command import benchmark
from bench.inspect.accuracy import Accuracy, accuracies
from bench.inspect.bodies import chat_body
from bench.inspect.corpus import mixed, texts
from bench.inspect.end_to_end import EndToEnd, measure
from bench.inspect.reading import Cost, cost
from bench.inspect.tokenizer import real_counts
from bench.machine import machine
from bench.result import FOLDER, write_result
from headgate_cli.stack import Announce

_SIZES = {"1kb": 1024, "32kb": 32 * 1024, "220kb": 220_000, "1mb": 1_000_000}
_LONG = "220kb"


def main(
    tries: Annotated[int, typer.Option(min=1, help="Batches timed of each step.")] = 60,
    seconds: Annotated[float, typer.Option(min=0.5, help="Measured part of each end-to-end run.")] = 5.0,
) -> None:
    """Measure what reading, weighing and editing chat bodies costs, end to end too, and how good the weight is."""
    console = Console()
    with benchmark("inspect", console) as announce:
        figures = _measure(tries, seconds, console, announce)
    console.print(f"written to {write_result('inspect', figures)}", highlight=False)


def _measure(tries: int, seconds: float, console: Console, announce: Announce) -> dict[str, object]:
    facts = machine()
    announce("reading and editing")
    sized = {name: cost(f"mixed {name}", chat_body(mixed(size)), tries) for name, size in _SIZES.items()}
    kinds = [cost(kind, chat_body(_of_size(text, _SIZES[_LONG])), tries) for kind, text in texts().items()]
    announce("counting real tokens")
    found = accuracies(texts(), real_counts())
    announce("starting the servers and Envoy")
    through = measure(chat_body(mixed(_SIZES[_LONG])), seconds, FOLDER / "inspect")
    announce("")
    _show(console, [*sized.values(), *kinds], found, through)
    every = found[-1]
    return {
        "speedup_over_json_220kb": sized[_LONG].speedup,
        **{f"us_{name}": figure.total_us for name, figure in sized.items()},
        "rps_220kb": through.rps,
        "estimate_error_p50": every.p50,
        "estimate_error_p95": every.p95,
        "estimate_error_worst": every.worst,
        "estimate_error_worst_under": every.worst_under,
        "estimate_error_p95_calibrated": every.calibrated_p95,
        "estimate_error_worst_calibrated": every.calibrated_worst,
        "costs": [*sized.values(), *kinds],
        "speedups": {figure.kind: figure.speedup for figure in (*sized.values(), *kinds)},
        "accuracy": found,
        "tokenizers": ["cl100k", "o200k"],
        "end_to_end": through,
        "machine": facts,
    }


def _of_size(text: str, size_bytes: int) -> str:
    repeated = text.encode() * (size_bytes // len(text.encode()) + 1)
    return repeated[:size_bytes].decode(errors="ignore")


def _show(console: Console, costs: Sequence[Cost], found: Sequence[Accuracy], through: EndToEnd) -> None:
    table = Table(
        "chat body", "bytes", "read + weigh us", "edit us", "json us", "times faster", "peak KB", "json peak KB"
    )
    for figure in costs:
        numbers = (figure.body_bytes, figure.read_us, figure.edit_us, figure.json_us)
        peaks = (figure.allocated_bytes / 1024, figure.json_allocated_bytes / 1024)
        table.add_row(
            figure.kind,
            *(f"{number:,.0f}" for number in numbers),
            f"{figure.speedup:.1f}",
            *(f"{peak:,.0f}" for peak in peaks),
        )
    console.print(table)
    table = Table("text", "counts", "bias", "error p50", "p95", "worst", "worst too low")
    for row in found:
        errors = (row.bias, row.p50, row.p95, row.worst, row.worst_under)
        table.add_row(row.kind, str(row.pieces), *(f"{error:.2f}" for error in errors))
    console.print(table)
    speed = f"{through.rps:,.0f} requests/s, Envoy alone {through.alone_rps:,.0f}; p50 {through.latency.p50_ms:.1f} ms"
    cpu = f"CPU a request {through.sidecar_cpu_us:,.0f} us sidecar, {through.envoy_cpu_us:,.0f} us Envoy"
    console.print(f"end to end, {through.body_bytes:,} bytes: {speed}; {cpu}", highlight=False)


if __name__ == "__main__":
    typer.run(main)
