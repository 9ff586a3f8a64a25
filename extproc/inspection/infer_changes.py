"""What may change in an infer request, and which of its tensors that concerns.

Knows the names and types of TensorRT-LLM's three kinds of models (`triton_models/` has the first two); knows neither
JSON nor protobuf.
"""

from __future__ import annotations

import struct
from collections.abc import Collection, Iterable, Mapping

import msgspec

from extproc.inspection.request import RequestError
from extproc.inspection.triton import LLMAPI_LIMIT_FIELD, OUTPUT_LIMIT_FIELDS
from headgate.policy.model import Decoding

_STOCK = {
    "temperature": ("temperature", "FP32"),
    "top_p": ("top_p", "FP32"),
    "top_k": ("top_k", "INT32"),
    "presence_penalty": ("presence_penalty", "FP32"),
    "frequency_penalty": ("frequency_penalty", "FP32"),
    "repetition_penalty": ("repetition_penalty", "FP32"),
    "seed": ("seed", "UINT64"),
}
"""The stock ensemble's inputs: override -> the tensor's name and type."""
_ENGINE = _STOCK | {"top_p": ("runtime_top_p", "FP32"), "top_k": ("runtime_top_k", "INT32")}
_LLMAPI = {
    name: (f"sampling_param_{tensor}", datatype)
    for name, (tensor, datatype) in _STOCK.items()
    if name != "repetition_penalty"
}
_DIALECTS = {LLMAPI_LIMIT_FIELD: _LLMAPI, "request_output_len": _ENGINE, "max_tokens": _STOCK}
"""The name of the output limit tells what kind of model is asked."""
_CODES = dict(
    zip(
        ("INT8", "INT16", "INT32", "INT64", "UINT8", "UINT16", "UINT32", "UINT64", "FP16", "FP32", "FP64"),
        "bhiqBHIQefd",
        strict=True,
    )
)
"""Of `struct`."""

Number = float | int


class InferChanges(msgspec.Struct, frozen=True, kw_only=True):
    """What changes besides the model's name.

    Attributes:
        limit: the output limit, under every name the request has for it; None: the client's own.
        overrides: decoding parameters by OpenAI's names; those that the kind of model has reach it.
        priority: Triton's, 1 the highest; None: the client's own.
    """

    limit: int | None = None
    overrides: Mapping[str, Decoding] = msgspec.field(default_factory=dict)
    priority: int | None = None

    @property
    def is_nothing(self) -> bool:
        """Whether the request stays as it is."""
        return self.limit is None and self.priority is None and not self.overrides

    def replaced(self, names: Collection[str]) -> dict[str, Number]:
        """The new values of tensors that a request with these has."""
        values: dict[str, Number] = {}
        if self.limit is not None:
            values |= {name: self.limit for name in OUTPUT_LIMIT_FIELDS if name in names}
        for dialect in _DIALECTS.values():
            values |= {name: value for name, value, _ in self._settings(dialect) if name in names}
        return values

    def added(self, names: Collection[str]) -> list[tuple[str, Number, str]]:
        """Name, value and type of the tensors it is to have besides; none where the kind of model is not known."""
        dialect = next((dialect for limit, dialect in _DIALECTS.items() if limit in names), {})
        return [setting for setting in self._settings(dialect) if setting[0] not in names]

    def _settings(self, dialect: Mapping[str, tuple[str, str]]) -> Iterable[tuple[str, Number, str]]:
        for override, value in self.overrides.items():
            if override in dialect and isinstance(value, (int, float)):
                name, datatype = dialect[override]
                yield name, value, datatype


def packed(name: str, value: Number, datatype: str) -> bytes:
    """One element of a tensor, in Triton's own bytes.

    Raises:
        RequestError: no tensor of this type can hold the value.
    """
    try:
        return struct.pack(f"<{_CODES[datatype]}", value)
    except (KeyError, struct.error, OverflowError):
        text = f"Tensor '{name}' of datatype '{datatype}' cannot hold {value}, which is set for it here."
        raise RequestError(text, param=name) from None


def checked_elements(name: str, elements: int) -> int:
    """How many elements get the new value, if there are any.

    Raises:
        RequestError: the request itself holds none: they are elsewhere, or of another type.
    """
    if elements < 1:
        raise RequestError(f"Tensor '{name}' has to hold its value itself: another is set for it here.", param=name)
    return elements
