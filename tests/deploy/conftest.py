"""The files of the container stack, read once."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
import yaml

REPOSITORY = Path(__file__).parents[2]
SCHEMA = "docker-compose==1.29.2"
"""The release of the Python docker-compose that carries the Compose specification's JSON schema."""


@pytest.fixture(scope="session")
def repository() -> Path:
    return REPOSITORY


@pytest.fixture(scope="session")
def compose() -> dict[str, Any]:
    document: dict[str, Any] = yaml.safe_load((REPOSITORY / "docker-compose.yml").read_text())
    return document


@pytest.fixture(scope="session")
def services(compose: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = compose["services"]
    return found


@pytest.fixture(scope="session")
def compose_schema(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The Compose specification, fetched once."""
    kept = REPOSITORY / ".headgate" / f"{SCHEMA.replace('==', '-')}.json"
    if not kept.exists():
        folder = tmp_path_factory.mktemp("schema")
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
        subprocess.run([*pip, "--dest", str(folder), SCHEMA], check=True)
        (wheel,) = folder.glob("*.whl")
        kept.parent.mkdir(exist_ok=True)
        kept.write_bytes(zipfile.ZipFile(wheel).read("compose/config/compose_spec.json"))
    schema: dict[str, Any] = json.loads(kept.read_text())
    return schema
