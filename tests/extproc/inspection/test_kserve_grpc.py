"""A ModelInferRequest is read like its JSON twin, and edited without losing what nobody here knows."""

from __future__ import annotations

import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tritonclient.grpc import service_pb2 as triton

from extproc.inspection.infer_changes import InferChanges
from extproc.inspection.kserve_grpc import asked_model, edit_message, inspect_message, rename_question
from extproc.inspection.request import InferenceRequest, Prompt, RequestError
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
    return inspect_message(request.SerializeToString(), stream=stream)


def edit(request: triton.ModelInferRequest, model: str = "assistant", **changes: Any) -> triton.ModelInferRequest:
    edited = edit_message(request.SerializeToString(), model=model, changes=InferChanges(**changes))
    return triton.ModelInferRequest.FromString(edited)


def refused(message: bytes) -> RequestError:
    with pytest.raises(RequestError) as raised:
        inspect_message(message, stream=False)
    return raised.value


EXPECTED = InferenceRequest(
    protocol=Protocol.KSERVE_GRPC,
    operation=Operation.INFER,
    model="assistant",
    prompt=Prompt(size_bytes=19, tokens=estimate_tokens(HELLO), texts=(HELLO,), opening=(HELLO,), messages=1),
    prompt_tokens=estimate_tokens(HELLO),
    max_output_tokens=50,
    output_limit_fields=("max_tokens",),
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
        edited = edit_message(request.SerializeToString(), model="m", changes=InferChanges(limit=4))
        assert inspect_message(edited, stream=False).max_output_tokens == 4


def test_raw_contents_skip_the_tensors_in_shared_memory() -> None:
    request = raw(*LLM)
    request.inputs.insert(0, tensor("image", "FP32", shared=True))

    assert read(request) == EXPECTED
    edited = edit(request, limit=7)
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
        triton.ModelInferRequest(
            inputs=[tensor("max_tokens", "INT32", shared=True, int_contents=[5])]
        ).SerializeToString(),
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

    edited = edit_message(message, model="ensemble", changes=InferChanges(limit=new))

    request.model_name = "ensemble"
    request.raw_input_contents[1] = struct.pack("<i", new)
    assert triton.ModelInferRequest.FromString(edited) == triton.ModelInferRequest.FromString(
        request.SerializeToString() + UNKNOWN
    )
    assert UNKNOWN in edited


OVERRIDES = {"temperature": 0.5, "top_p": 0.25, "top_k": 1, "seed": 2**63 - 1, "min_p": 0.1, "stop": ("x",)}
LIMIT = LLM[1]


def numbers(request: triton.ModelInferRequest) -> dict[str, tuple[str, list[int], object]]:
    """Name -> type, shape and values of all tensors but the text."""
    raws = iter(request.raw_input_contents)
    found: dict[str, tuple[str, list[int], object]] = {}
    for described in request.inputs:
        held = [list(values) for _, values in described.contents.ListFields()]
        values: object = next(raws) if request.raw_input_contents else held[0]
        found[described.name] = (described.datatype, list(described.shape), values)
    found.pop("text_input", None)
    return found


def test_overrides_become_raw_tensors_where_the_others_are_raw() -> None:
    assert numbers(edit(raw(*LLM), overrides=OVERRIDES)) == {
        "max_tokens": ("INT32", [1, 1], struct.pack("<i", 50)),
        "temperature": ("FP32", [1, 1], struct.pack("<f", 0.5)),
        "top_p": ("FP32", [1, 1], struct.pack("<f", 0.25)),
        "top_k": ("INT32", [1, 1], struct.pack("<i", 1)),
        "seed": ("UINT64", [1, 1], struct.pack("<Q", 2**63 - 1)),
    }


def test_overrides_become_typed_tensors_where_the_others_are_typed() -> None:
    request = triton.ModelInferRequest(
        inputs=[
            tensor("text_input", "BYTES", bytes_contents=[b"hi"]),
            triton.ModelInferRequest.InferInputTensor(
                name="sampling_param_max_tokens",
                datatype="INT32",
                shape=[1],
                contents=triton.InferTensorContents(int_contents=[50]),
            ),
        ]
    )

    assert numbers(edit(request, overrides=OVERRIDES)) == {
        "sampling_param_max_tokens": ("INT32", [1], [50]),
        "sampling_param_temperature": ("FP32", [1], [0.5]),
        "sampling_param_top_p": ("FP32", [1], [0.25]),
        "sampling_param_top_k": ("INT32", [1], [1]),
        "sampling_param_seed": ("UINT64", [1], [2**63 - 1]),
    }


@pytest.mark.parametrize(
    ("datatype", "field", "code", "value"),
    [
        ("FP32", "fp32_contents", "<f", 1.5),
        ("FP64", "fp64_contents", "<d", 1.5),
        ("INT8", "int_contents", "<b", 2),
        ("INT16", "int_contents", "<h", 2),
        ("INT32", "int_contents", "<i", 2),
        ("INT64", "int64_contents", "<q", 2),
        ("UINT8", "uint_contents", "<B", 2),
        ("UINT16", "uint_contents", "<H", 2),
        ("UINT32", "uint_contents", "<I", 2),
        ("UINT64", "uint64_contents", "<Q", 2),
    ],
)
def test_an_override_follows_the_type_the_client_sent(datatype: str, field: str, code: str, value: float) -> None:
    in_raw = raw(LIMIT, ("temperature", datatype, struct.pack(code, 1) * 2))
    typed = triton.ModelInferRequest(inputs=[tensor("temperature", datatype, **{field: [1, 1]})])

    # Two elements: a batch of two.
    assert numbers(edit(in_raw, overrides={"temperature": value}))["temperature"][2] == struct.pack(code, value) * 2
    assert numbers(edit(typed, overrides={"temperature": value}))["temperature"][2] == [value, value]


@pytest.mark.parametrize(
    "described",
    [
        tensor("temperature", "BYTES", bytes_contents=[b"1"]),
        tensor("temperature", "INT32", int_contents=[1]),
        tensor("temperature", "FP16", fp32_contents=[1]),
        tensor("temperature", "FP32", fp64_contents=[1]),
        tensor("temperature", "FP32", shared=True),
        tensor("temperature", "FP32"),
    ],
    ids=["no number", "a whole number", "only raw", "another type", "elsewhere", "nothing"],
)
def test_a_tensor_that_cannot_hold_what_is_set_for_it_is_refused(described: Any) -> None:
    request = triton.ModelInferRequest(inputs=[described])

    with pytest.raises(RequestError) as raised:
        edit(request, overrides={"temperature": 0.5})

    assert (raised.value.status, raised.value.param) == (400, "temperature")


@pytest.mark.parametrize("name", ["runtime_top_k", "top_k", "sampling_param_top_k"])
def test_without_an_output_limit_only_what_is_there_is_set(name: str) -> None:
    request = raw(LLM[0], (name, "INT32", struct.pack("<i", 40)))

    assert numbers(edit(request, overrides=OVERRIDES)) == {name: ("INT32", [1, 1], struct.pack("<i", 1))}


def test_tritons_priority_is_a_parameter() -> None:
    request = raw(*LLM)
    request.parameters["priority"].uint64_param = 7
    request.parameters["sequence_id"].int64_param = 5

    edited = edit(request, priority=2)

    assert edited.parameters["priority"] == triton.InferParameter(int64_param=2)
    assert edited.parameters["sequence_id"] == triton.InferParameter(int64_param=5)
    assert numbers(edited) == numbers(request)


@given(
    prompt=st.text(max_size=20),
    tensors=st.dictionaries(
        st.sampled_from(["temperature", "top_p", "runtime_top_k", "other"]),
        st.tuples(st.sampled_from(["FP32", "FP64"]), st.integers(1, 3)),
    ),
    limit=st.none() | st.sampled_from(["max_tokens", "request_output_len", "sampling_param_max_tokens"]),
    overrides=st.dictionaries(st.sampled_from(["temperature", "top_p", "top_k", "seed", "stop"]), st.integers(0, 9)),
    priority=st.none() | st.integers(1, 9),
)
def test_an_edit_sets_what_it_is_to_set_and_nothing_else(
    prompt: str,
    tensors: dict[str, tuple[str, int]],
    limit: str | None,
    overrides: dict[str, int],
    priority: int | None,
) -> None:
    limits = [(limit, "INT32", struct.pack("<i", 50))] if limit else []
    sent = [(name, kind, struct.pack("<" + CODES[kind] * n, *[77] * n)) for name, (kind, n) in tensors.items()]
    request = raw(("text_input", "BYTES", text(prompt)), *sent, *limits)
    names = NAMES[limit]

    edited = edit(request, "ensemble", overrides=overrides, priority=priority)

    found = numbers(edited)
    for override, value in overrides.items():
        for name in {names.get(override), override, f"runtime_{override}"} & found.keys():
            kind, _, data = found[str(name)]
            assert isinstance(data, bytes)
            assert set(struct.unpack("<" + CODES[kind] * (len(data) // struct.calcsize(CODES[kind])), data)) == {value}
    added = {names[override] for override in overrides if override in names} - tensors.keys()
    assert found.keys() - numbers(request).keys() == added
    assert edited.raw_input_contents[0] == text(prompt)
    assert {k: v for k, v in found.items() if k in ("other", limit)} == {
        k: v for k, v in numbers(request).items() if k in ("other", limit)
    }
    assert edited.parameters["priority"].int64_param == (priority or 0)
    assert inspect_message(edited.SerializeToString(), stream=False).max_output_tokens == (50 if limit else None)


CODES = {"FP32": "f", "FP64": "d", "INT32": "i", "UINT64": "Q"}
NAMES: dict[str | None, dict[str, str]] = {
    None: {},
    "max_tokens": {name: name for name in ("temperature", "top_p", "top_k", "seed")},
    "request_output_len": {
        "temperature": "temperature",
        "top_p": "runtime_top_p",
        "top_k": "runtime_top_k",
        "seed": "seed",
    },
    "sampling_param_max_tokens": {name: f"sampling_param_{name}" for name in ("temperature", "top_p", "top_k", "seed")},
}


def test_without_a_new_limit_the_old_one_stays() -> None:
    edited = edit_message(raw(*LLM).SerializeToString(), model="ensemble", changes=InferChanges())

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
