"""Triton's generate, generate_stream and infer bodies, with the tensor names of the stock TensorRT-LLM models.

Knows both dialects: the ensemble's `text_input`/`max_tokens`/`stream` and the llmapi model's
`sampling_param_max_tokens`/`streaming`. Binary tensors are read in place (KServe v2 binary data extension).
"""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from extproc.headers import Headers
from extproc.inspection.json import decode
from extproc.inspection.request import InferenceRequest, Prompt, RequestError, checked_output_limit
from extproc.inspection.target import Operation, Target
from extproc.tokens import estimate_tokens
from headgate.policy.model import Protocol

TEXT_TENSOR = "text_input"
LLMAPI_LIMIT_FIELD = "sampling_param_max_tokens"
OUTPUT_LIMIT_FIELDS = ("max_tokens", LLMAPI_LIMIT_FIELD, "request_output_len")
SHARED_MEMORY = "shared_memory_region"
MAX_TEXTS = 4096
JSON_LENGTH_HEADER = "inference-header-content-length"
INTEGER_BYTES = {"INT32": 4, "UINT32": 4, "INT64": 8, "UINT64": 8}


class _Generate(msgspec.Struct):
    text_input: str | list[str] | None = None
    max_tokens: int | list[int] | None = None
    sampling_param_max_tokens: int | list[int] | None = None
    stream: bool | list[bool] | None = None
    streaming: bool | list[bool] | None = None


class Tensor(msgspec.Struct):
    """One entry of `inputs`; `data` stays raw JSON until somebody needs it."""

    name: str
    shape: list[int] = msgspec.field(default_factory=list)
    datatype: str = ""
    parameters: dict[str, msgspec.Raw] = msgspec.field(default_factory=dict)
    data: msgspec.Raw = msgspec.Raw()


class _Infer(msgspec.Struct):
    inputs: list[Tensor]


_GENERATE = msgspec.json.Decoder(_Generate)
_INFER = msgspec.json.Decoder(_Infer)
_ANY = msgspec.json.Decoder()
_OBJECT = msgspec.json.Decoder(dict[str, msgspec.Raw])
_OBJECTS = msgspec.json.Decoder(list[dict[str, msgspec.Raw]])


@dataclass(frozen=True, slots=True)
class BinarySpan:
    """Where a tensor's bytes lie in the body."""

    start: int
    end: int


def inspect_generate(target: Target, body: bytes) -> InferenceRequest:
    """Read a generate or generate_stream body."""
    generate = decode(body, _GENERATE)
    _refuse_repeated_fields(body)
    texts = [generate.text_input] if isinstance(generate.text_input, str) else generate.text_input or []
    fields = {
        "max_tokens": generate.max_tokens,
        "sampling_param_max_tokens": generate.sampling_param_max_tokens,
    }
    stream = target.operation is Operation.GENERATE_STREAM
    return tensor_request(
        Protocol.TRITON,
        target.operation,
        target.model or "",
        stream=stream or _only(generate.stream) is True or _only(generate.streaming) is True,
        texts=texts,
        limits={name: _one_integer(name, value) for name, value in fields.items() if value is not None},
    )


def inspect_infer(target: Target, headers: Headers, body: bytes) -> InferenceRequest:
    """Read an infer body: JSON, or JSON followed by binary tensors."""
    infer, spans = split_infer(headers, body)
    texts: list[str] = []
    limits: dict[str, int] = {}
    for tensor in infer:
        if tensor.name == TEXT_TENSOR:
            texts += _strings(tensor, spans, body)
        elif tensor.name in OUTPUT_LIMIT_FIELDS:
            limits[tensor.name] = _integer(tensor, spans, body)
    model = target.model or ""
    return tensor_request(Protocol.TRITON, target.operation, model, stream=False, texts=texts, limits=limits)


def split_infer(headers: Headers, body: bytes) -> tuple[list[Tensor], dict[str, BinarySpan]]:
    """The input tensors of an infer body, and where the binary ones have their bytes."""
    json_bytes = json_length(headers, body)
    tensors = decode(body[:json_bytes], _INFER).inputs
    _refuse_repeated_keys(body[:json_bytes])
    if len({tensor.name for tensor in tensors}) < len(tensors):
        raise RequestError("'inputs' names a tensor twice.", param="inputs")
    spans: dict[str, BinarySpan] = {}
    position = json_bytes
    for tensor in tensors:
        raw = tensor.parameters.get("binary_data_size")
        if (raw is not None) + bool(tensor.data) + (SHARED_MEMORY in tensor.parameters) > 1:
            # Which of them counts is the server's choice, and what lies in shared memory is not weighed.
            raise RequestError(f"Tensor '{tensor.name}' has its data in two places.", param="inputs")
        if raw is not None:
            size = decode(raw, _ANY, "inputs")
            if not isinstance(size, int) or isinstance(size, bool) or not 0 <= size <= len(body) - position:
                raise RequestError(
                    f"'binary_data_size' of tensor '{tensor.name}' does not fit the body.", param="inputs"
                )
            spans[tensor.name] = BinarySpan(position, position + size)
            position += size
    return tensors, spans


def _refuse_repeated_fields(body: bytes) -> None:
    """Of a repeated key Triton takes the first and `decode` the last: one would run and the other be charged."""
    once = msgspec.json.encode(decode(body, _OBJECT))
    # Only white space may make a difference.
    if len(once) != len(body) and _unspaced_bytes(once) != _unspaced_bytes(body):
        raise RequestError("A key is repeated, or written with an escape.")


def _unspaced_bytes(text: bytes) -> int:
    return len(msgspec.json.format(text, indent=-1))


def _refuse_repeated_keys(head: bytes) -> None:
    """The same for what an infer body says of its inputs."""
    fields = decode(head, _OBJECT)
    inputs = decode(bytes(fields["inputs"]), _OBJECTS)
    for tensor in inputs:
        if "parameters" in tensor:
            tensor["parameters"] = msgspec.Raw(msgspec.json.encode(decode(bytes(tensor["parameters"]), _OBJECT)))
    once = msgspec.json.encode(fields | {"inputs": msgspec.Raw(msgspec.json.encode(inputs))})
    if _unspaced_bytes(once) != _unspaced_bytes(head):
        raise RequestError("A key is repeated, or written with an escape.", param="inputs")


def json_length(headers: Headers, body: bytes) -> int:
    """How many bytes of the body are JSON (`Inference-Header-Content-Length`)."""
    declared = headers.get(JSON_LENGTH_HEADER)
    if not declared:
        return len(body)
    if not (declared.isascii() and declared.isdigit() and len(declared) < 19) or int(declared) > len(body):
        raise RequestError("'Inference-Header-Content-Length' does not fit the body.")
    return int(declared)


def tensor_request(
    protocol: Protocol,
    operation: Operation,
    model: str,
    *,
    stream: bool,
    texts: list[str],
    limits: dict[str, int],
    session: str = "",
) -> InferenceRequest:
    """What a request comes to whose prompt and output limits have been read from its tensors.

    Raises:
        RequestError: a limit cannot be one, or two of them differ.
    """
    for name, value in limits.items():
        checked_output_limit(value, name)
    if len(set(limits.values())) > 1:
        # Which of them counts depends on the model's dialect, and so would the cap.
        raise RequestError(f"{' and '.join(map(repr, limits))} have to be equal.", param=next(iter(limits)))
    prompt = Prompt(
        size_bytes=sum(len(text.encode("utf-8", "surrogatepass")) for text in texts),
        tokens=sum(map(estimate_tokens, texts)),
        texts=tuple(texts),
        opening=tuple(texts[:1]),
        messages=len(texts),
    )
    return InferenceRequest(
        protocol=protocol,
        operation=operation,
        model=model,
        stream=stream,
        prompt=prompt,
        prompt_tokens=prompt.tokens,
        max_output_tokens=next(iter(limits.values()), None),
        output_limit_fields=tuple(limits),
        session=session,
    )


def _strings(tensor: Tensor, spans: dict[str, BinarySpan], body: bytes) -> list[str]:
    if tensor.name in spans:
        span = spans[tensor.name]
        return length_prefixed(body[span.start : span.end])
    values = flat(tensor)
    if not all(isinstance(value, str) for value in values):
        raise RequestError(f"Tensor '{tensor.name}' has to hold strings.", param=tensor.name)
    return [str(value) for value in values]


def length_prefixed(data: bytes) -> list[str]:
    """BYTES elements: each a 4-byte little-endian length, then that many bytes."""
    texts: list[str] = []
    position = 0
    while position < len(data):
        if len(texts) == MAX_TEXTS:
            raise RequestError(f"Tensor '{TEXT_TENSOR}' has more than {MAX_TEXTS} elements.", param=TEXT_TENSOR)
        size = int.from_bytes(data[position : position + 4], "little")
        position += 4
        if position + size > len(data):
            raise RequestError(f"Tensor '{TEXT_TENSOR}' is cut short.", param=TEXT_TENSOR)
        texts.append(data[position : position + size].decode("utf-8", "replace"))
        position += size
    return texts


def _integer(tensor: Tensor, spans: dict[str, BinarySpan], body: bytes) -> int:
    values: list[object]
    if tensor.name in spans:
        width = INTEGER_BYTES.get(tensor.datatype, 0)
        data = body[spans[tensor.name].start : spans[tensor.name].end]
        is_signed = tensor.datatype.startswith("INT")
        values = [int.from_bytes(data, "little", signed=is_signed)] if width and len(data) == width else []
    else:
        values = flat(tensor)
    if len(values) != 1 or isinstance(values[0], bool) or not isinstance(values[0], int):
        raise RequestError(f"Tensor '{tensor.name}' has to hold one whole number.", param=tensor.name)
    return values[0]


def flat(tensor: Tensor) -> list[object]:
    """The elements of JSON tensor data, however it is nested, in any order.

    Raises:
        RequestError: the request itself holds none.
    """
    if not bytes(tensor.data):
        raise RequestError(f"Tensor '{tensor.name}' has no data.", param=tensor.name)
    values: list[object] = []
    pending = [decode(tensor.data, _ANY, tensor.name)]
    while pending:
        value = pending.pop()
        if isinstance(value, list):
            pending.extend(value)
        else:
            values.append(value)
    return values


def _one_integer(field: str, value: int | list[int]) -> int:
    one = _only(value)
    if not isinstance(one, int):
        raise RequestError(f"'{field}' has to be one whole number.", param=field)
    return one


def _only(value: object) -> object:
    """Triton takes a one-element list for a scalar."""
    return value[0] if isinstance(value, list) and len(value) == 1 else value
