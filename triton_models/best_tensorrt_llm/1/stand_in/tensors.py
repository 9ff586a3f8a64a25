"""Reading and writing the tensors of the TensorRT-LLM models: scalars and word lists.

Owns their shapes; knows nothing of what the values mean.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils


def scalar(request: pb_utils.InferenceRequest, name: str, default: Any = None) -> Any:
    """The only value of an optional input, as a Python value; `default` when the client sent none."""
    tensor = pb_utils.get_input_tensor_by_name(request, name)
    if tensor is None:
        return default
    values = tensor.as_numpy()
    if values.size != 1:
        raise pb_utils.TritonModelException(f"expected one value for {name}, got {values.size}")
    return values.item()


def strings(request: pb_utils.InferenceRequest, name: str) -> list[bytes]:
    """All values of an optional string input; an empty list when the client sent none."""
    tensor = pb_utils.get_input_tensor_by_name(request, name)
    return [] if tensor is None else [bytes(value) for value in tensor.as_numpy().ravel()]


def token_ids(request: pb_utils.InferenceRequest, name: str) -> list[int]:
    """The values of an integer input, flattened."""
    tensor = pb_utils.get_input_tensor_by_name(request, name)
    return [] if tensor is None else [int(value) for value in tensor.as_numpy().ravel()]


def parameter(config: Mapping[str, Any], name: str, default: str) -> str:
    """A `parameters` entry of config.pbtxt. A template's unfilled `${...}` counts as absent, as in the stock models."""
    value = config.get("parameters", {}).get(name, {}).get("string_value", "")
    return default if not value or value.startswith("${") else str(value)


def int32(name: str, values: Any) -> pb_utils.Tensor:
    """An INT32 tensor with a batch dimension of one in front."""
    return pb_utils.Tensor(name, np.asarray([values], dtype=np.int32))


def word_list(name: str, phrases: Iterable[list[int]]) -> pb_utils.Tensor:
    """Phrases as TensorRT-LLM wants them, shape [1, 2, n]: all ids in a row, and under them where each phrase ends.

    The second row is padded with -1.
    """
    ids: list[int] = []
    offsets: list[int] = []
    for phrase in phrases:
        ids.extend(phrase)
        offsets.append(len(ids))
    width = max(len(ids), 1)
    return int32(name, [ids + [0] * (width - len(ids)), offsets + [-1] * (width - len(offsets))])


def phrases(request: pb_utils.InferenceRequest, name: str) -> tuple[tuple[int, ...], ...]:
    """What `word_list` wrote; an empty tuple when the client sent none."""
    tensor = pb_utils.get_input_tensor_by_name(request, name)
    if tensor is None:
        return ()
    ids, offsets = tensor.as_numpy().reshape(2, -1).tolist()
    ends = [end for end in offsets if end > 0]
    return tuple(tuple(ids[start:end]) for start, end in zip([0, *ends], ends, strict=False) if start < end)
