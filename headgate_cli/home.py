"""Where `headgate` keeps what it installs and writes for the local stack: nowhere outside one folder."""

from __future__ import annotations

import os
from pathlib import Path

_REPOSITORY = Path(__file__).resolve().parent.parent
_DATA = Path(__file__).resolve().parent / "data"


def home() -> Path:
    """HEADGATE_HOME; else `.headgate` in a checkout of the project, else the user's cache folder."""
    chosen = os.environ.get("HEADGATE_HOME")
    if chosen:
        return Path(chosen).resolve()
    if _is_checkout():
        return _REPOSITORY / ".headgate"
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "headgate"


def triton_models() -> Path:
    """The model repository for Triton."""
    return _REPOSITORY / "triton_models" if _is_checkout() else _DATA / "triton_models"


def triton_lock() -> Path:
    """The locked packages of Triton's environment."""
    return _REPOSITORY / "requirements" / "triton.txt" if _is_checkout() else _DATA / "triton.txt"


def _is_checkout() -> bool:
    return (_REPOSITORY / "pyproject.toml").is_file() and (_REPOSITORY / "triton_models").is_dir()
