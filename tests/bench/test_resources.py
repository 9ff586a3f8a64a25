"""Reading the kernel's counts."""

from __future__ import annotations

import os
import time

import pytest

from bench.resources import busy_ticks, cpu_seconds, resident_bytes


def test_busy_ticks_leave_out_idle_waiting_and_what_is_counted_twice() -> None:
    #                   user nice system idle iowait irq softirq steal guest guest_nice
    line = "cpu  100 20 30 4000 500 6 7 8 90 10\ncpu0 1 1 1 1 1 1 1 1 1 1\n"
    assert busy_ticks(line) == 100 + 20 + 30 + 6 + 7 + 8


def test_the_cpu_time_of_a_process_is_what_the_process_itself_sees() -> None:
    before = time.process_time()
    read = cpu_seconds(os.getpid())
    assert before <= read <= time.process_time()


def test_a_process_that_is_not_there_has_no_cpu_time() -> None:
    with pytest.raises(OSError):
        cpu_seconds(2**22 + 1)


def test_resident_memory_is_in_bytes() -> None:
    before = resident_bytes(os.getpid())
    held = bytearray(os.urandom(1024)) * (32 * 1024)
    assert resident_bytes(os.getpid()) - before >= 0.9 * len(held)
