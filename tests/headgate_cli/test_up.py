"""`headgate up` as a person runs it: start, look, Ctrl-C, and nothing is left."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_up_prints_requests_that_work_and_leaves_no_process(number: signal.Signals, tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    up = subprocess.Popen(
        [sys.executable, "-m", "headgate_cli", "up", "--free-ports"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment,
        start_new_session=True,
    )
    watchdog = threading.Timer(120, up.kill)
    watchdog.start()
    try:
        text = ""
        while text.count("curl ") < 3:
            line = up.stdout.readline()
            assert line, f"it ended before it was up:\n{text}"
            text += line
        children = descendants(up.pid)
        statuses = [run_curl(line.strip()) for line in text.splitlines() if line.strip().startswith("curl ")]
        up.send_signal(number)
        code = up.wait(60)
    finally:
        watchdog.cancel()
        up.kill()
        up.wait()
        up.stdout.close()

    assert statuses == ["200", "200", "401"]
    assert len(children) >= 5, "Envoy, Triton, two stand-ins and the sidecar"
    assert code == 0
    assert [pid for pid in children if is_alive(pid)] == []


def run_curl(line: str) -> str:
    command = [*shlex.split(line), "-s", "-o", "/dev/null", "-w", "%{http_code}"]
    command = [word for word in command if word != "-i"]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=30).stdout


def descendants(root: int) -> list[int]:
    parents: dict[int, int] = {}
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            text = status.read_text()
        except OSError:
            continue  # it ended meanwhile
        match = re.match(r"(\d+) \(.*\) \S (\d+) ", text, re.DOTALL)
        assert match is not None
        parents[int(match[1])] = int(match[2])
    found = [root]
    for pid in found:
        found += [child for child, parent in parents.items() if parent == pid]
    return found[1:]


def is_alive(pid: int) -> bool:
    try:
        return ") Z " not in Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
