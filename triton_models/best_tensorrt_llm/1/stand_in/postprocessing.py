"""Postprocessing: token ids to text, with the tensors of TensorRT-LLM's `postprocessing` model.

Knows the tokenizer and nothing of slots or sampling. One instance only: two would reorder a stream's tokens.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils

from stand_in import tokenizer


class TritonPythonModel:
    """One instance serves all requests of a batch, each with its own response."""

    def execute(self, requests: list[Any]) -> list[Any]:
        """Answer every request with the text of its tokens."""
        return [pb_utils.InferenceResponse([_text_of(request)]) for request in requests]


def _text_of(request: Any) -> Any:
    ids = pb_utils.get_input_tensor_by_name(request, "TOKENS_BATCH").as_numpy()
    lengths = pb_utils.get_input_tensor_by_name(request, "SEQUENCE_LENGTH").as_numpy()
    text = tokenizer.decode(ids[0, 0, : lengths[0, 0]].tolist())
    return pb_utils.Tensor("OUTPUT", np.array([[text.encode()]], dtype=np.object_))
