"""Answers each request with the inputs it came with; a prompt that is a path waits until the file is there."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils

_NUMBERS = (
    *("max_tokens", "top_k", "top_p", "temperature", "seed"),
    *("repetition_penalty", "presence_penalty", "frequency_penalty"),
)
_PATIENCE_SECONDS = 60.0


class TritonPythonModel:
    """Counts what it has run."""

    def initialize(self, _: dict[str, str]) -> None:
        self._runs = 0

    def execute(self, requests: list[Any]) -> list[Any]:
        return [self._answer(request) for request in requests]

    def _answer(self, request: Any) -> Any:
        prompt = pb_utils.get_input_tensor_by_name(request, "text_input").as_numpy().item().decode()
        if prompt.startswith("/"):
            _wait_for(Path(prompt))
        tensors = {name: pb_utils.get_input_tensor_by_name(request, name) for name in _NUMBERS}
        received = {name: tensor.as_numpy().item() for name, tensor in tensors.items() if tensor is not None}
        self._runs += 1
        text = json.dumps({"prompt": prompt, "run": self._runs, "numbers": received})
        return pb_utils.InferenceResponse([pb_utils.Tensor("received", np.array([[text.encode()]], dtype=np.object_))])


def _wait_for(path: Path) -> None:
    path.with_suffix(".started").touch()
    give_up_at = time.monotonic() + _PATIENCE_SECONDS
    while not path.exists() and time.monotonic() < give_up_at:
        time.sleep(0.005)
