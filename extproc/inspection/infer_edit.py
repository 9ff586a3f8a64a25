"""Edits of Triton's infer bodies over HTTP: JSON, and the binary tensors behind it.

Only the tensors and the one parameter that change are written anew; every other value keeps its very bytes.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from extproc.headers import Headers
from extproc.inspection.infer_changes import InferChanges, Number, checked_elements, packed
from extproc.inspection.json import decode
from extproc.inspection.triton import (
    JSON_LENGTH_HEADER,
    OUTPUT_LIMIT_FIELDS,
    BinarySpan,
    Tensor,
    flat,
    json_length,
    split_infer,
)

_OBJECT = msgspec.json.Decoder(dict[str, msgspec.Raw])
_OBJECTS = msgspec.json.Decoder(list[dict[str, msgspec.Raw]])
_PARAMETERS = msgspec.json.Decoder(dict[str, msgspec.Raw] | None)


class EditedInfer(msgspec.Struct, frozen=True):
    """A new body.

    Attributes:
        json_bytes: how much of it is JSON, where that is no longer what the headers declare.
    """

    body: bytes
    json_bytes: int | None


def edit_infer(headers: Headers, body: bytes, changes: InferChanges) -> EditedInfer | None:
    """The same request with `changes` made; None when they concern nothing of it.

    Raises:
        RequestError: a tensor cannot hold what it is to be set to.
    """
    tensors, spans = split_infer(headers, body)
    json_bytes = json_length(headers, body)
    values = changes.replaced({tensor.name for tensor in tensors})
    in_json = {name: value for name, value in values.items() if name not in spans}
    added = _added(tensors, changes)
    head, tail = body[:json_bytes], _tail(body[json_bytes:], json_bytes, tensors, spans, values)
    if in_json or added or changes.priority is not None:
        head = _head(head, tensors, in_json, added, changes.priority)
    if JSON_LENGTH_HEADER in headers:
        # White space keeps the declared length true where it can.
        head = head.ljust(json_bytes)
    edited = head + tail
    if edited == body:
        return None
    is_declared = len(head) == json_bytes or JSON_LENGTH_HEADER not in headers
    return EditedInfer(edited, None if is_declared else len(head))


def _tail(
    tail: bytes, start: int, tensors: list[Tensor], spans: Mapping[str, BinarySpan], values: Mapping[str, Number]
) -> bytes:
    """The binary part; no tensor in it changes its length."""
    if not any(name in values for name in spans):
        return tail
    edited = bytearray(tail)
    for tensor in tensors:
        if tensor.name in values and tensor.name in spans:
            span, element = spans[tensor.name], packed(tensor.name, values[tensor.name], tensor.datatype)
            elements = checked_elements(tensor.name, (span.end - span.start) // len(element))
            edited[span.start - start : span.start - start + elements * len(element)] = element * elements
    return bytes(edited)


def _head(
    head: bytes,
    tensors: list[Tensor],
    values: Mapping[str, Number],
    added: list[dict[str, object]],
    priority: int | None,
) -> bytes:
    fields = decode(head, _OBJECT)
    inputs: list[dict[str, msgspec.Raw]] = decode(fields["inputs"], _OBJECTS)
    for tensor, described in zip(tensors, inputs, strict=True):
        if tensor.name in values:
            described["data"] = _data(tensor, values[tensor.name])
    fields["inputs"] = msgspec.Raw(msgspec.json.encode([*inputs, *added]))
    if priority is not None:
        parameters = decode(fields["parameters"], _PARAMETERS, "parameters") if "parameters" in fields else None
        numbered = (parameters or {}) | {"priority": msgspec.Raw(str(priority).encode())}
        fields["parameters"] = msgspec.Raw(msgspec.json.encode(numbered))
    return msgspec.json.encode(fields)


def _data(tensor: Tensor, value: Number) -> msgspec.Raw:
    packed(tensor.name, value, tensor.datatype)
    return msgspec.Raw(msgspec.json.encode([value] * checked_elements(tensor.name, len(flat(tensor)))))


def _added(tensors: list[Tensor], changes: InferChanges) -> list[dict[str, object]]:
    """New tensors as JSON, of the shape the output limit has: one number for one prompt."""
    added = changes.added({tensor.name for tensor in tensors})
    shape = next((tensor.shape for tensor in tensors if tensor.name in OUTPUT_LIMIT_FIELDS), [])
    return [{"name": name, "shape": shape, "datatype": kind, "data": [value]} for name, value, kind in added]
