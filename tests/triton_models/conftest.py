"""The import paths of the code that runs inside Triton."""

from __future__ import annotations

import sys

from headgate_cli.home import triton_models

for folder in ("best_tensorrt_llm/1", "sentiment/1"):
    sys.path.append(str(triton_models() / folder))
