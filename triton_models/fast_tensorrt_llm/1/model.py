"""Loads the stand-in's `engine`; the code all six share lives in one of them (see README.md)."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[2] / "best_tensorrt_llm" / "1"))

from stand_in.engine import TritonPythonModel  # noqa: F401
