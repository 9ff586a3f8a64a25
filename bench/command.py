"""The frame of every benchmark's command: an error is a message and an exit code; Ctrl-C leaves nothing running."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

import typer
from rich.console import Console

from headgate.errors import HeadgateError
from headgate_cli.stack import Announce
from headgate_cli.up import showing_progress, terminating_politely


@contextmanager
def benchmark(name: str, console: Console) -> Iterator[Announce]:
    """Run the block as `bench-NAME`: exit code 1 for an error with a message, 130 for an interruption."""
    try:
        with terminating_politely(), showing_progress(console) as announce:
            yield announce
    except (HeadgateError, OSError) as error:
        print(f"bench-{name}: {error}", file=sys.stderr)
        raise typer.Exit(1) from None
    except KeyboardInterrupt:
        raise typer.Exit(130) from None
