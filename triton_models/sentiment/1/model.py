"""Triton's side of the sentiment model: tensors in, tensors out; the words are in lexicon.py."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils

sys.path.append(str(Path(__file__).parent))

from lexicon import sentiment_of


class TritonPythonModel:
    """Each request may itself be a batch: one text a row."""

    def execute(self, requests: list[Any]) -> list[Any]:
        """Answer every request with a label and a score for each of its rows."""
        return [_answer(request) for request in requests]


def _answer(request: Any) -> Any:
    texts = pb_utils.get_input_tensor_by_name(request, "text").as_numpy()
    verdicts = [sentiment_of(bytes(text).decode(errors="replace")) for text in texts.ravel()]
    labels = np.array([label.encode() for label, _ in verdicts], dtype=np.object_).reshape(texts.shape)
    scores = np.array([score for _, score in verdicts], dtype=np.float32).reshape(texts.shape)
    return pb_utils.InferenceResponse([pb_utils.Tensor("label", labels), pb_utils.Tensor("score", scores)])
