"""KServe v2 inference over gRPC: the messages of `inference.GRPCInferenceService`, with Triton's tensor names.

Names protobuf types, as `wire.py` does for Envoy's. Fields this schema does not know stay in an edited message.
"""

from __future__ import annotations

from typing import Any

from google.protobuf.message import DecodeError

from extproc.inspection.infer_changes import InferChanges, checked_elements, packed
from extproc.inspection.request import InferenceRequest, RequestError
from extproc.inspection.target import Operation
from extproc.inspection.triton import (
    INTEGER_BYTES,
    MAX_TEXTS,
    OUTPUT_LIMIT_FIELDS,
    SHARED_MEMORY,
    TEXT_TENSOR,
    length_prefixed,
    tensor_request,
)
from headgate.pb import kserve_pb2 as pb
from headgate.policy.model import Protocol

_MAX_FIELDS = 4096
_SEQUENCE = "sequence_id"
_PRIORITY = "priority"
_INTEGER_FIELDS = {
    "INT32": "int_contents",
    "INT64": "int64_contents",
    "UINT32": "uint_contents",
    "UINT64": "uint64_contents",
}
_NUMBER_FIELDS = _INTEGER_FIELDS | {
    **dict.fromkeys(("INT8", "INT16"), "int_contents"),
    **dict.fromkeys(("UINT8", "UINT16"), "uint_contents"),
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
}

_Tensor = pb.ModelInferRequest.InferInputTensor


def inspect_message(message: bytes, *, stream: bool) -> InferenceRequest:
    """Read a `ModelInferRequest`.

    Raises:
        RequestError: it is not one, or a tensor that decides is not readable.
    """
    request = _parse(message)
    texts: list[str] = []
    limits: dict[str, int] = {}
    for tensor, index in _inputs(request):
        if tensor.name == TEXT_TENSOR:
            texts += _strings(request, tensor, index)
        elif tensor.name in OUTPUT_LIMIT_FIELDS:
            limits[tensor.name] = _integer(request, tensor, index)
    return tensor_request(
        Protocol.KSERVE_GRPC,
        Operation.STREAM_INFER if stream else Operation.INFER,
        request.model_name,
        stream=stream,
        texts=texts,
        limits=limits,
        session=_session(request),
    )


def edit_message(message: bytes, *, model: str, changes: InferChanges) -> bytes:
    """The same request for another model's name and with `changes` made.

    Raises:
        RequestError: a tensor cannot hold what it is to be set to.
    """
    request = _parse(message)
    request.model_name = model
    _replace(request, changes)
    _add(request, changes)
    if changes.priority is not None:
        # Of the two types Triton takes, the one that is in KServe's own message too.
        request.parameters[_PRIORITY].int64_param = changes.priority
    return request.SerializeToString()


def asked_model(message: bytes) -> str:
    """The model a question about one is about; each of these messages has its name in the same place."""
    return _question(message).name


def rename_question(message: bytes, model: str) -> bytes:
    """The same question about another model."""
    question = _question(message)
    question.name = model
    return question.SerializeToString()


def _question(message: bytes) -> pb.ModelReadyRequest:
    try:
        return pb.ModelReadyRequest.FromString(message)
    except DecodeError:
        raise RequestError("The message is not the one its method takes.") from None


def _parse(message: bytes) -> pb.ModelInferRequest:
    _check_fields(message)
    try:
        return pb.ModelInferRequest.FromString(message)
    except DecodeError:
        raise RequestError("The message is not a ModelInferRequest.") from None


def _check_fields(message: bytes) -> None:
    """Two bytes can become a tensor of a hundred once parsed; so no more of them than any request has."""
    position, count = 0, 0
    while position < len(message):
        tag, position = _varint(message, position)
        count += 1
        match tag & 7:
            case 2:
                size, position = _varint(message, position)
                position += size
            case 0:
                _, position = _varint(message, position)
            case 1:
                position += 8
            case 5:
                position += 4
            case _:
                raise RequestError("The message is not a ModelInferRequest.")
        if count > _MAX_FIELDS:
            raise RequestError(f"The message has more than {_MAX_FIELDS} tensors and parameters.", param="inputs")


def _varint(message: bytes, position: int) -> tuple[int, int]:
    value = 0
    for index, byte in enumerate(message[position : position + 10]):
        value |= (byte & 0x7F) << 7 * index
        if byte < 0x80:
            return value, position + index + 1
    raise RequestError("The message is not a ModelInferRequest.")


def _inputs(request: pb.ModelInferRequest) -> list[tuple[_Tensor, int | None]]:
    """Each input tensor, with the index of its raw contents where it has some.

    Raw contents stand for all inputs but those in shared memory, in their order, and then no input has others.
    """
    if len({tensor.name for tensor in request.inputs}) < len(request.inputs):
        raise RequestError("'inputs' names a tensor twice.", param="inputs")
    for tensor in request.inputs:
        # Of two places the server's choice counts, and what lies in shared memory is not weighed.
        if tensor.HasField("contents") and (request.raw_input_contents or SHARED_MEMORY in tensor.parameters):
            raise RequestError(f"Tensor '{tensor.name}' has both kinds of contents.", param=tensor.name)
    if not request.raw_input_contents:
        return [(tensor, None) for tensor in request.inputs]
    indexes = iter(range(len(request.inputs)))
    found = [(tensor, None if SHARED_MEMORY in tensor.parameters else next(indexes)) for tensor in request.inputs]
    if next(indexes, len(request.inputs)) != len(request.raw_input_contents):
        raise RequestError("'raw_input_contents' does not match 'inputs'.", param="raw_input_contents")
    return found


def _strings(request: pb.ModelInferRequest, tensor: _Tensor, index: int | None) -> list[str]:
    if index is not None:
        return length_prefixed(request.raw_input_contents[index])
    texts = tensor.contents.bytes_contents
    if not 1 <= len(texts) <= MAX_TEXTS:
        raise RequestError(f"Tensor '{tensor.name}' has to hold 1 to {MAX_TEXTS} readable elements.", param=tensor.name)
    return [text.decode("utf-8", "replace") for text in texts]


def _integer(request: pb.ModelInferRequest, tensor: _Tensor, index: int | None) -> int:
    width, field = INTEGER_BYTES.get(tensor.datatype, 0), _INTEGER_FIELDS.get(tensor.datatype, "")
    values: list[int] = []
    if width and index is not None:
        data = request.raw_input_contents[index]
        values = [int.from_bytes(data, "little", signed=field.startswith("int"))] if len(data) == width else []
    elif field:
        values = list(getattr(tensor.contents, field))
    if len(values) != 1:
        raise RequestError(f"Tensor '{tensor.name}' has to hold one whole number.", param=tensor.name)
    return values[0]


def _replace(request: pb.ModelInferRequest, changes: InferChanges) -> None:
    values = changes.replaced({tensor.name for tensor in request.inputs})
    for tensor, index in _inputs(request) if values else ():
        if tensor.name not in values:
            continue
        value, datatype = values[tensor.name], tensor.datatype
        element = packed(tensor.name, value, datatype)
        if index is not None:
            elements = checked_elements(tensor.name, len(request.raw_input_contents[index]) // len(element))
            request.raw_input_contents[index] = element * elements
        else:
            contents = _typed(tensor)
            contents[:] = [value] * checked_elements(tensor.name, len(contents))


def _add(request: pb.ModelInferRequest, changes: InferChanges) -> None:
    """New tensors behind the others, of the shape the output limit has: one number for one prompt."""
    shape = next((tensor.shape for tensor in request.inputs if tensor.name in OUTPUT_LIMIT_FIELDS), ())
    is_raw = bool(request.raw_input_contents)
    for name, value, datatype in changes.added({tensor.name for tensor in request.inputs}):
        tensor = request.inputs.add(name=name, datatype=datatype, shape=shape)
        if is_raw:
            request.raw_input_contents.append(packed(name, value, datatype))
        else:
            _typed(tensor).append(value)


def _typed(tensor: _Tensor) -> Any:
    """The numbers of a tensor that has no raw contents.

    Raises:
        RequestError: there is no field for its type.
    """
    field = _NUMBER_FIELDS.get(tensor.datatype)
    if field is None:
        raise RequestError(f"Tensor '{tensor.name}' has to be sent raw.", param=tensor.name)
    return getattr(tensor.contents, field)


def _session(request: pb.ModelInferRequest) -> str:
    """Triton's sequence, whose requests belong together; 0 stands for none."""
    if _SEQUENCE not in request.parameters:
        return ""
    value = request.parameters[_SEQUENCE]
    kind = value.WhichOneof("parameter_choice")
    sequence = getattr(value, kind) if kind else ""
    return str(sequence) if sequence else ""
