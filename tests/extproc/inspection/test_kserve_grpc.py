"""A ModelInferRequest is read like its JSON twin, and edited without losing what nobody here knows."""

from __future__ import annotations

import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from tritonclient.grpc import service_pb2 as triton

from extproc.inspection.kserve_grpc import asked_model, edit_message, inspect_message, rename_question
from extproc.inspection.request import InferenceRequest, RequestError
from extproc.inspection.target import Operation
from extproc.tokens import estimate_tokens
from headgate.policy.model import Protocol

HELLO = "Hello, who are you?"
UNKNOWN = b"\xaa\x06\x03new"
"""Field 101, which no schema here has."""


def text(*elements: str) -> bytes:
    return b"".join(struct.pack("<I", len(element.encode())) + element.encode() for element in elements)


def tensor(
    name: str, datatype: str, shared: bool = False, **contents: Any
) -> triton.ModelInferRequest.InferInputTensor:
    described = triton.ModelInferRequest.InferInputTensor(name=name, datatype=datatype, shape=[1, 1])
    if contents:
        described.contents.CopyFrom(triton.InferTensorContents(**contents))
    if shared:
        described.parameters["shared_memory_region"].string_param = "region"
    return described


def raw(*tensors: tuple[str, str, bytes], model: str = "assistant") -> triton.ModelInferRequest:
    request = triton.ModelInferRequest(model_name=model, model_version="2", id="7")
    for name, datatype, data in tensors:
        request.inputs.append(tensor(name, datatype))
        request.raw_input_contents.append(data)
    return request


LLM = (("text_input", "BYTES", text(HELLO)), ("max_tokens", "INT32", struct.pack("<i", 50)))


def read(request: triton.ModelInferRequest, *, stream: bool = False) -> InferenceRequest:
    return replace(inspect_message(request.SerializeToString(), stream=stream), texts=())


def refused(message: bytes) -> RequestError:
    with pytest.raises(RequestError) as raised:
        inspect_message(message, stream=False)
    return raised.value


EXPECTED = InferenceRequest(
    protocol=Protocol.KSERVE_GRPC,
    operation=Operation.INFER,
    model="assistant",
    prompt_bytes=19,
    prompt_tokens=estimate_tokens(HELLO),
    max_output_tokens=50,
    output_limit_fields=("max_tokens",),
    messages=1,
    opening=(HELLO,),
)


def test_raw_tensors_are_read() -> None:
    assert read(raw(*LLM)) == EXPECTED


def test_typed_tensors_are_read() -> None:
    request = triton.ModelInferRequest(
        model_name="assistant",
        inputs=[
            tensor("text_input", "BYTES", bytes_contents=[HELLO.encode()]),
            tensor("max_tokens", "INT32", int_contents=[50]),
        ],
    )

    assert read(request) == EXPECTED


def test_a_stream_is_one_and_a_model_that_is_no_language_model_has_no_prompt() -> None:
    request = read(raw(("text", "BYTES", text("x")), model="sentiment"), stream=True)

    assert (request.operation, request.stream) == (Operation.STREAM_INFER, True)
    assert (request.prompt_tokens, request.max_output_tokens) == (0, None)


@pytest.mark.parametrize(
    ("datatype", "data", "field"),
    [
        ("INT32", struct.pack("<i", 9), "int_contents"),
        ("INT64", struct.pack("<q", 9), "int64_contents"),
        ("UINT32", struct.pack("<I", 9), "uint_contents"),
        ("UINT64", struct.pack("<Q", 9), "uint64_contents"),
    ],
)
def test_an_output_limit_may_have_any_whole_type(datatype: str, data: bytes, field: str) -> None:
    name = "sampling_param_max_tokens"
    in_raw = raw((name, datatype, data))
    typed = triton.ModelInferRequest(model_name="m", inputs=[tensor(name, datatype, **{field: [9]})])

    for request in (in_raw, typed):
        assert read(request).max_output_tokens == 9
        edited = edit_message(request.SerializeToString(), model="m", limit=4)
        assert inspect_message(edited, stream=False).max_output_tokens == 4


def test_raw_contents_skip_the_tensors_in_shared_memory() -> None:
    request = raw(*LLM)
    request.inputs.insert(0, tensor("image", "FP32", shared=True))

    assert read(request) == EXPECTED
    edited = triton.ModelInferRequest.FromString(edit_message(request.SerializeToString(), model="m", limit=7))
    assert edited.raw_input_contents == [text(HELLO), struct.pack("<i", 7)]


def _with(request: triton.ModelInferRequest, **fields: Any) -> bytes:
    request.MergeFrom(triton.ModelInferRequest(**fields))
    return request.SerializeToString()


@pytest.mark.parametrize(
    "message",
    [
        b"\xff",
        b"\x0a\x05abc",
        b"\x0a\x02\xff\xfe",
        b"\x0b\x0c",
        b"\x0a" + b"\xff" * 10,
        raw(("text_input", "BYTES", b"\xff\0\0\0x")).SerializeToString(),
        raw(("max_tokens", "INT32", b"\1\0")).SerializeToString(),
        raw(("max_tokens", "FP32", b"\1\0\0\0")).SerializeToString(),
        raw(("max_tokens", "INT32", struct.pack("<i", -1))).SerializeToString(),
        raw(("max_tokens", "INT32", struct.pack("<i", 0))).SerializeToString(),
        raw(LLM[1], ("request_output_len", "INT32", struct.pack("<i", 51))).SerializeToString(),
        raw(LLM[0], LLM[0]).SerializeToString(),
        _with(raw(*LLM), raw_input_contents=[b"more"]),
        _with(raw(*LLM), inputs=[tensor("other", "BYTES")]),
        _with(raw(LLM[0]), inputs=[tensor("max_tokens", "INT32", int_contents=[5])]),
        triton.ModelInferRequest(inputs=[tensor("text_input", "BYTES", shared=True)]).SerializeToString(),
        triton.ModelInferRequest(inputs=[tensor("max_tokens", "INT32", shared=True)]).SerializeToString(),
        triton.ModelInferRequest(inputs=[tensor("max_tokens", "INT32", int_contents=[5, 6])]).SerializeToString(),
        triton.ModelInferRequest(inputs=[tensor("max_tokens", "INT32", int64_contents=[5])]).SerializeToString(),
        triton.ModelInferRequest(inputs=[tensor("text_input", "BYTES")]).SerializeToString(),
        b"\x2a\0" * 5000,
        raw(("text_input", "BYTES", bytes(4 * 4097))).SerializeToString(),
        triton.ModelInferRequest(
            inputs=[tensor("text_input", "BYTES", bytes_contents=[b""] * 4097)]
        ).SerializeToString(),
    ],
)
def test_a_message_that_cannot_be_weighed_is_refused(message: bytes) -> None:
    assert refused(message).status == 400


def test_contents_of_both_kinds_for_one_tensor_are_refused() -> None:
    request = raw(*LLM)
    request.inputs[1].contents.int_contents.append(1_000_000)

    assert refused(request.SerializeToString()).param == "max_tokens"


@given(
    prompt=st.text(max_size=50), limit=st.integers(1, 2**31 - 1), new=st.integers(1, 2**31 - 1), sequence=st.integers(0)
)
def test_an_edit_changes_the_name_and_the_limit_and_nothing_else(
    prompt: str, limit: int, new: int, sequence: int
) -> None:
    request = raw(("text_input", "BYTES", text(prompt)), ("max_tokens", "INT32", struct.pack("<i", limit)))
    request.parameters["sequence_id"].int64_param = sequence % 2**63
    request.parameters["sequence_start"].bool_param = True
    request.outputs.add(name="text_output").parameters["binary_data"].bool_param = True
    message = request.SerializeToString() + UNKNOWN

    edited = edit_message(message, model="ensemble", limit=new)

    request.model_name = "ensemble"
    request.raw_input_contents[1] = struct.pack("<i", new)
    assert triton.ModelInferRequest.FromString(edited) == triton.ModelInferRequest.FromString(
        request.SerializeToString() + UNKNOWN
    )
    assert UNKNOWN in edited


def test_without_a_new_limit_the_old_one_stays() -> None:
    edited = edit_message(raw(*LLM).SerializeToString(), model="ensemble", limit=None)

    request = inspect_message(edited, stream=False)
    assert (request.model, request.max_output_tokens) == ("ensemble", 50)


@pytest.mark.parametrize(
    ("value", "session"),
    [({"int64_param": 42}, "42"), ({"string_param": "s"}, "s"), ({"uint64_param": 0}, ""), ({}, "")],
)
def test_a_sequence_is_a_session(value: dict[str, Any], session: str) -> None:
    request = raw(*LLM)
    request.parameters["sequence_id"].CopyFrom(triton.InferParameter(**value))

    assert read(request).session == session


@pytest.mark.parametrize(
    "kind",
    [
        triton.ModelReadyRequest,
        triton.ModelMetadataRequest,
        triton.ModelConfigRequest,
        triton.ModelStatisticsRequest,
    ],
)
def test_a_question_about_a_model_is_asked_about_another(kind: Any) -> None:
    message = kind(name="assistant", version="3").SerializeToString()

    assert asked_model(message) == "assistant"
    assert kind.FromString(rename_question(message, "best")) == kind(name="best", version="3")


def test_a_question_that_is_none_is_refused() -> None:
    with pytest.raises(RequestError):
        asked_model(b"\xff")
