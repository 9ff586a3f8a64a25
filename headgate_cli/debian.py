"""Programs and libraries from the Debian archive, unpacked into a folder: no root, nothing installed into the system.

Knows packages and apt's own resolver; what a package is for is its caller's business.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from headgate.errors import HeadgateError


class DebianError(HeadgateError):
    """Raised when there is no apt here, or it cannot fetch a package; says what it said."""


def unpack(packages: Sequence[str], directory: Path, *, with_dependencies: bool) -> None:
    """Unpack the newest release of some packages into `directory`, which then looks like a small root of its own.

    Args:
        with_dependencies: also what they need and this machine does not have.

    Raises:
        DebianError: see there.
    """
    if not shutil.which("apt-get") or not shutil.which("dpkg-deb"):
        raise DebianError("there is no apt-get here to fetch it with")
    root = directory.absolute()
    root.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="headgate-apt-") as scratch:
        work = Path(scratch)
        for part in ("state/lists/partial", "cache/archives/partial", "packages"):
            (work / part).mkdir(parents=True)
        apt_get = ["apt-get", "-q", *_private_options(work)]
        _run([*apt_get, "update"], work)
        if with_dependencies:
            _run([*apt_get, "install", "--yes", "--download-only", "--no-install-recommends", *packages], work)
        # A package that is installed already is not downloaded again by `install`.
        _run([*apt_get, "download", *packages], work / "packages")
        for package in sorted([*(work / "cache/archives").glob("*.deb"), *(work / "packages").glob("*.deb")]):
            _run(["dpkg-deb", "-x", str(package), str(root)], work)


def _private_options(work: Path) -> list[str]:
    settings = {
        "Dir::State": work / "state",
        "Dir::State::status": "/var/lib/dpkg/status",
        "Dir::Cache": work / "cache",
        # Nothing of the system's is written, so nothing of it needs a lock.
        "Debug::NoLocking": "1",
        "APT::Sandbox::User": "",
    }
    return [option for name, value in settings.items() for option in ("-o", f"{name}={value}")]


def _run(command: Sequence[str], directory: Path) -> None:
    outcome = subprocess.run(command, cwd=directory, capture_output=True, text=True, check=False)
    if outcome.returncode:
        said = (outcome.stderr or outcome.stdout).strip()[-400:]
        raise DebianError(f"`{command[0]} {command[-1]}` failed: {said}")
