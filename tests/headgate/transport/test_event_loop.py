"""What a process does before its loop runs: long bodies cost no page faults once some have come."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

ROUNDS = 100
PROGRAM = f"""
import resource
from headgate.transport.event_loop import run

async def main():
    for round in range({ROUNDS} + 10):
        if round == 10:
            before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        bodies = [bytes(300_000) for _ in range(3)]
        del bodies
    print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)

run(main())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="about the malloc of glibc")
def test_long_bodies_are_not_mapped_anew() -> None:
    faults = subprocess.run([sys.executable, "-c", PROGRAM], check=True, capture_output=True, text=True).stdout

    # A body is 73 pages of 4 KiB.
    assert int(faults) < ROUNDS * 10
