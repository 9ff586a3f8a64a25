"""Child processes of the local stack: started, waited for until ready, and stopped to the last one.

Each child leads a process group of its own and is killed by the kernel if this process dies without cleaning up.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import time
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from headgate.errors import HeadgateError

_PR_SET_PDEATHSIG = 1
_POLL_SECONDS = 0.05
_LIBC = ctypes.CDLL(None)


class ProcessFailed(HeadgateError):  # noqa: N818  (says what happened)
    """Raised when a child ends or stays silent before it is ready; shows the end of its log."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """One child to run.

    Attributes:
        ready_url: answers 200 once the program is ready.
        ready_seconds: how long that may take.
        stop_seconds: how long it may take to end after SIGTERM.
    """

    name: str
    command: Sequence[str]
    environment: Mapping[str, str] = field(default_factory=dict)
    ready_url: str
    ready_seconds: float = 60.0
    stop_seconds: float = 10.0


class Supervisor:
    """Runs programs for the time of a `with` block; each writes to `NAME.log` in the log folder."""

    def __init__(self, logs: Path) -> None:
        self._logs = logs
        self._children: list[tuple[Program, subprocess.Popen[bytes]]] = []
        logs.mkdir(parents=True, exist_ok=True)

    def __enter__(self) -> Supervisor:
        return self

    def __exit__(self, *exception: object) -> None:
        self.stop()

    def log(self, name: str) -> Path:
        """Where a program's output goes."""
        return self._logs / f"{name}.log"

    def pid(self, name: str) -> int:
        """The process id of a running program."""
        return next(child.pid for program, child in self._children if program.name == name)

    def start(self, program: Program) -> None:
        """Start one program; returns at once."""
        with self.log(program.name).open("wb") as log:
            child = subprocess.Popen(
                program.command,
                env={**os.environ, **program.environment},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=_die_with_parent,  # nothing but one system call happens in it
            )
        self._children.append((program, child))

    def wait_ready(self, waiting: Callable[[str], None] = lambda _: None) -> None:
        """Wait until every program is ready; `waiting` is told of each as its turn comes.

        Raises:
            ProcessFailed: one ended, or took too long.
        """
        for program, child in self._children:
            waiting(program.name)
            give_up_at = time.monotonic() + program.ready_seconds
            while not _is_ready(program.ready_url):
                if child.poll() is not None:
                    raise ProcessFailed(f"{program.name} ended with code {child.returncode}.\n{self._tail(program)}")
                if time.monotonic() > give_up_at:
                    raise ProcessFailed(
                        f"{program.name} is not ready after {program.ready_seconds:.0f} s.\n{self._tail(program)}"
                    )
                time.sleep(_POLL_SECONDS)

    def first_ended(self) -> str | None:
        """The name of a program that has ended by itself; None while all run."""
        return next((program.name for program, child in self._children if child.poll() is not None), None)

    def stop(self) -> None:
        """End every program, the last started first; whoever does not go in time is killed."""
        while self._children:
            program, child = self._children.pop()
            if child.poll() is None:
                child.terminate()
                try:
                    child.wait(program.stop_seconds)
                except subprocess.TimeoutExpired:
                    child.kill()
                    child.wait()
            _end_group(child.pid)

    def _tail(self, program: Program) -> str:
        lines = self.log(program.name).read_text(errors="replace").splitlines()[-15:]
        return "\n".join([f"The end of {self.log(program.name)}:", *(f"  {line}" for line in lines)])


def _is_ready(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2.0) as answer:  # noqa: S310  (an address of our own)
            return bool(answer.status == 200)
    except OSError:
        return False


def _die_with_parent() -> None:
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def _end_group(group: int) -> None:
    try:
        os.killpg(group, signal.SIGKILL)
    except ProcessLookupError:
        pass  # all of its processes have gone by themselves
