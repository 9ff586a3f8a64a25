"""Triton's environment: installed once, by one process, whole or not at all."""

from __future__ import annotations

import os
import sys
import threading
from pathlib import Path

import pytest

from headgate_cli.triton_environment import (
    TritonEnvironment,
    TritonEnvironmentError,
    check_supported,
    new_shm_prefix,
    remove_shared_memory,
)

VERSION = f"{sys.version_info.major}.{sys.version_info.minor}"
TRITON = f"venv/lib/python{VERSION}/site-packages/pytriton/tritonserver"
# Stands in for the running Python: `-m venv DIR` makes an environment whose `-m pip install` unpacks a tiny Triton.
PYTHON = f"""#!/bin/sh
echo "$2" >>"$PYTHON_LOG"
case "$2" in
venv) mkdir -p "$3/bin" && cp "$0" "$3/bin/python" ;;
pip)
    echo "Collecting nvidia-pytriton"
    [ -e "$PIP_FAILS" ] && echo "ERROR: no matching distribution" && exit 1
    triton="$(dirname "$0")/../lib/python{VERSION}/site-packages/pytriton/tritonserver"
    stub="$triton/python_backend_stubs/{VERSION}/triton_python_backend_stub"
    mkdir -p "$(dirname "$stub")" "$triton/backends/python"
    printf '#!/bin/sh\\nexit 1\\n' >"$stub"
    ;;
esac
"""


class Machine:
    """A place to install to, with a count of what was run."""

    def __init__(self, folder: Path) -> None:
        self.log = folder / "python.log"
        self.pip_fails = folder / "pip-fails"
        self.requirements = folder / "triton.txt"
        self.requirements.write_text("nvidia-pytriton==0.7.0 --hash=sha256:00\n")
        self.environment = TritonEnvironment(folder / "triton")

    def ensure(self, progress=lambda line: None):
        self.environment.ensure(self.requirements, progress)

    @property
    def ran(self):
        return self.log.read_text().split() if self.log.exists() else []

    @property
    def stub(self):
        return self.environment.root / TRITON / "backends/python/triton_python_backend_stub"


@pytest.fixture
def machine(tmp_path, monkeypatch):
    python = tmp_path / "python"
    python.write_text(PYTHON)
    python.chmod(0o755)
    machine = Machine(tmp_path)
    monkeypatch.setattr(sys, "executable", str(python))
    monkeypatch.setenv("PYTHON_LOG", str(machine.log))
    monkeypatch.setenv("PIP_FAILS", str(machine.pip_fails))
    return machine


def test_it_installs_once_and_tells_what_it_does(machine):
    said = []
    machine.ensure(said.append)
    assert os.access(machine.stub, os.X_OK)
    assert "Collecting nvidia-pytriton" in said
    machine.ensure(pytest.fail)
    assert machine.ran == ["venv", "pip"]


def test_other_requirements_are_installed_anew(machine):
    machine.ensure()
    machine.requirements.write_text("nvidia-pytriton==0.8.0 --hash=sha256:00\n")
    machine.ensure()
    assert machine.ran == ["venv", "pip"] * 2


def test_a_failed_installation_shows_pips_words_and_counts_for_nothing(machine):
    machine.pip_fails.touch()
    with pytest.raises(TritonEnvironmentError, match="ERROR: no matching distribution"):
        machine.ensure()
    machine.pip_fails.unlink()
    machine.ensure()
    assert machine.stub.is_file()


def test_an_interrupted_installation_starts_afresh(machine):
    def interrupt(line):
        if line.startswith("Collecting"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        machine.ensure(interrupt)
    leftover = machine.environment.root / "venv" / "leftover"
    leftover.touch()
    machine.ensure()
    assert machine.stub.is_file()
    assert not leftover.exists()


def test_of_two_at_once_one_installs_and_the_other_waits(machine):
    said, waits, installs = [], threading.Event(), threading.Event()

    def slow(line):
        installs.set()
        assert waits.wait(10)

    def hurried(line):
        said.append(line)
        waits.set()

    first = threading.Thread(target=machine.ensure, args=(slow,))
    first.start()
    assert installs.wait(10)
    machine.ensure(hurried)
    first.join()
    assert said == ["waiting for another process that is installing Triton"]
    assert machine.ran == ["venv", "pip"]


def test_the_command_listens_on_loopback_only(tmp_path):
    command = TritonEnvironment(tmp_path).command(
        Path("models"), http_port=1, grpc_port=2, metrics_port=3, shm_prefix="headgate_x"
    )
    assert command[0] == str(tmp_path / TRITON / "bin" / "tritonserver")
    assert {"--http-port=1", "--grpc-port=2", "--metrics-port=3", "--model-repository=models"} <= set(command)
    assert [option for option in command if "address=" in option] == [
        "--http-address=127.0.0.1",
        "--grpc-address=127.0.0.1",
        "--metrics-address=127.0.0.1",
    ]
    assert "--backend-config=python,shm-region-prefix-name=headgate_x" in command


def test_its_own_python_and_libraries_come_first(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", "/usr/bin")
    monkeypatch.setenv("LD_LIBRARY_PATH", "/opt/lib")
    monkeypatch.setenv("PYTHONPATH", "/elsewhere")
    environ = TritonEnvironment(tmp_path).environ()
    assert environ["PATH"] == f"{tmp_path}/venv/bin:/usr/bin"
    assert environ["LD_LIBRARY_PATH"] == f"{tmp_path}/lib:/opt/lib"
    assert environ["PYTHONPATH"] == ""


@pytest.mark.parametrize(
    ("glibc", "python", "reason"),
    [
        ((2, 31), (3, 11), r"glibc 2\.35 or newer .*; this machine has glibc 2\.31"),
        (None, (3, 11), "this machine has another C library"),
        ((2, 36), (3, 13), r"Python 3\.9 to 3\.12; this is Python 3\.13"),
    ],
)
def test_a_machine_that_cannot_run_it_is_told_so(glibc, python, reason):
    with pytest.raises(TritonEnvironmentError, match=reason):
        check_supported(glibc, python)


def test_a_supported_machine_passes():
    check_supported((2, 35), (3, 11))


def test_the_shared_memory_of_a_killed_run_is_removed_and_no_other():
    mine, other = new_shm_prefix(), new_shm_prefix()
    files = [Path("/dev/shm") / f"{prefix}{number}" for prefix in (mine, other) for number in range(2)]
    for file in files:
        file.touch()
    try:
        assert remove_shared_memory(mine) == 2
        assert [file.exists() for file in files] == [False, False, True, True]
    finally:
        assert remove_shared_memory(other) == 2


def test_only_a_prefix_of_its_own_is_ever_removed():
    with pytest.raises(ValueError, match="not a prefix"):
        remove_shared_memory("")
