"""KServe v2 inference over gRPC: the messages of `inference.GRPCInferenceService`, with Triton's tensor names.

Names protobuf types, as `wire.py` does for Envoy's. Fields this schema does not know stay in an edited message.
"""

from __future__ import annotations

from google.protobuf.message import DecodeError

from extproc.inspection.request import InferenceRequest, RequestError
from extproc.inspection.target import Operation
from extproc.inspection.triton import (
    INTEGER_BYTES,
    MAX_TEXTS,
    OUTPUT_LIMIT_FIELDS,
    TEXT_TENSOR,
    length_prefixed,
    tensor_request,
)
from headgate.pb import kserve_pb2 as pb
from headgate.policy.model import Protocol

_MAX_FIELDS = 4096
_SHARED_MEMORY = "shared_memory_region"
_SEQUENCE = "sequence_id"
_INTEGER_FIELDS = {
    "INT32": "int_contents",
    "INT64": "int64_contents",
    "UINT32": "uint_contents",
    "UINT64": "uint64_contents",
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


def edit_message(message: bytes, *, model: str, limit: int | None) -> bytes:
    """The same request for another model's name and, where it has output limits, with this limit (None: its own)."""
    request = _parse(message)
    request.model_name = model
    if limit is not None:
        _set_limit(request, limit)
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
    if not request.raw_input_contents:
        return [(tensor, None) for tensor in request.inputs]
    indexes = iter(range(len(request.inputs)))
    found = [(tensor, None if _SHARED_MEMORY in tensor.parameters else next(indexes)) for tensor in request.inputs]
    if next(indexes, len(request.inputs)) != len(request.raw_input_contents):
        raise RequestError("'raw_input_contents' does not match 'inputs'.", param="raw_input_contents")
    for tensor, index in found:
        if index is not None and tensor.HasField("contents"):
            raise RequestError(f"Tensor '{tensor.name}' has both kinds of contents.", param=tensor.name)
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


def _set_limit(request: pb.ModelInferRequest, limit: int) -> None:
    for tensor, index in _inputs(request):
        if tensor.name not in OUTPUT_LIMIT_FIELDS:
            continue
        if index is not None:
            request.raw_input_contents[index] = limit.to_bytes(INTEGER_BYTES[tensor.datatype], "little")
        else:
            getattr(tensor.contents, _INTEGER_FIELDS[tensor.datatype])[:] = [limit]


def _session(request: pb.ModelInferRequest) -> str:
    """Triton's sequence, whose requests belong together; 0 stands for none."""
    if _SEQUENCE not in request.parameters:
        return ""
    value = request.parameters[_SEQUENCE]
    kind = value.WhichOneof("parameter_choice")
    sequence = getattr(value, kind) if kind else ""
    return str(sequence) if sequence else ""
