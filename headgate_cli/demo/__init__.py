"""`headgate demo`: the main job, shown and checked on a running stack."""

from __future__ import annotations

import json
from pathlib import Path

from rich.console import Console
from rich.table import Table

from headgate_cli.demo.cases import CASES, Demo
from headgate_cli.demo.client import Client
from headgate_cli.demo.row import Row
from headgate_cli.stack import Stack, StackSettings
from headgate_cli.up import showing_progress, terminating_politely

_LOG_COLUMNS = 140


def demo(settings: StackSettings, output: Path, console: Console) -> int:
    """Run every case; print and write the rows; 1 if any case did not show what it has to."""
    with terminating_politely(), showing_progress(console) as announce, Stack(settings, announce) as stack:
        rows: list[Row] = []
        failures: list[str] = []
        console.print(f"watch it live: {stack.admin_url}/", highlight=False, soft_wrap=True)
        with Client(stack.url, stack.supervisor.log("headgate")) as client:
            for case in CASES:
                announce(f"case {case.__name__}")
                run = Demo(case.__name__, client, stack.admin_url)
                case(run)
                rows += run.rows
                failures += run.failures
        announce("")
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps([row.as_dict() for row in rows], indent=1) + "\n")
    if not console.is_terminal:
        console.width = _LOG_COLUMNS
    console.print(_table(rows))
    for failure in failures:
        console.print(f"FAILED {failure}", style="bold red", highlight=False, markup=False)
    outcome = f"{len(failures)} failed" if failures else f"all {len(CASES)} cases hold"
    console.print(f"{outcome}; the rows are in {output}", highlight=False, markup=False)
    return 1 if failures else 0


def _table(rows: list[Row]) -> Table:
    table = Table("case", "tenant", "tier", "protocol", box=None, header_style="bold")
    for name in ("prompt tokens", "cluster", "verdict", "reason", "status", "TTFT ms"):
        table.add_column(name, justify="right" if name in ("prompt tokens", "TTFT ms") else "left")
    styles = {"ADMIT": "green", "QUEUE": "cyan", "DEGRADE": "yellow", "REJECT": "red"}
    for row in rows:
        ttft = "" if row.ttft_seconds is None else f"{row.ttft_seconds * 1000:.0f}"
        verdict = f"[{styles.get(row.verdict, '')}]{row.verdict}[/]" if row.verdict in styles else row.verdict
        table.add_row(
            row.case, row.tenant, row.tier, row.protocol, str(row.prompt_tokens), row.cluster, verdict, row.reason,
            str(row.status), ttft,
        )  # fmt: skip
    return table
