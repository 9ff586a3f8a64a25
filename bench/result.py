"""Where a benchmark's figures go: one JSON file, whole or not at all."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import msgspec

FOLDER = Path("build/bench")
"""Relative to the checkout, where `make` runs."""


def write_result(name: str, figures: Mapping[str, object], folder: Path = FOLDER) -> Path:
    """Write `NAME.json`; dataclasses become objects. Returns where it is."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.json"
    partial = path.with_suffix(".json.partial")
    partial.write_bytes(msgspec.json.format(msgspec.json.encode(figures), indent=2) + b"\n")
    partial.replace(path)
    return path
