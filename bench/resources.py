"""What processes of this machine use, as the Linux kernel counts it: CPU time and resident memory."""

from __future__ import annotations

import os
import time
from pathlib import Path

_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
_IDLE_FIELDS = (3, 4)  # idle and iowait of proc_stat(5)
_GUEST_FIELDS = 8  # from here on the line repeats what user and nice hold already


def cpu_seconds(pid: int) -> float:
    """User and system time of a running process, all its threads, ended ones too.

    The sum that /proc/PID/stat shows in ticks of 10 ms, read to the nanosecond from the process's CPU clock
    (clock_getcpuclockid(3)).

    Raises:
        OSError: there is no such process.
    """
    return time.clock_gettime(~pid << 3 | 2)


def resident_bytes(pid: int) -> int:
    """Resident memory of a running process (proc_pid_statm(5)).

    Raises:
        OSError: there is no such process.
    """
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE_BYTES


def busy_seconds() -> float:
    """CPU time of the whole machine since it started, all cores together."""
    return busy_ticks(Path("/proc/stat").read_text()) / _TICKS_PER_SECOND


def busy_ticks(proc_stat: str) -> int:
    """All ticks of the first line of /proc/stat in which a core did something."""
    ticks = [int(field) for field in proc_stat.splitlines()[0].split()[1 : _GUEST_FIELDS + 1]]
    return sum(ticks) - sum(ticks[index] for index in _IDLE_FIELDS)
