"""An edited infer body says what it is to say, its lengths are right, and nothing else of it has changed."""

from __future__ import annotations

import json
import struct
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from extproc.headers import Headers
from extproc.inspection import inspect
from extproc.inspection.infer_changes import InferChanges
from extproc.inspection.infer_edit import edit_infer
from extproc.inspection.request import RequestError
from extproc.inspection.target import Operation, Target
from extproc.inspection.triton import BinarySpan, Tensor, json_length, split_infer
from headgate.policy.model import Protocol

INFER = Target(Protocol.TRITON, Operation.INFER, "assistant", "/infer")
LENGTH = "inference-header-content-length"
WHOLE = ["INT8", "INT16", "INT32", "INT64", "UINT8", "UINT16", "UINT32", "UINT64"]
CODES = dict(zip([*WHOLE, "FP16", "FP32", "FP64"], "bhiqBHIQefd", strict=True))


def tensor(name: str, datatype: str, data: object = None, *, shape: object = (1, 1), size: int | None = None) -> Any:
    described: dict[str, object] = {"name": name, "shape": shape, "datatype": datatype}
    return described | ({"data": data} if size is None else {"parameters": {"binary_data_size": size}})


TEXT = tensor("text_input", "BYTES", ["Hello"])
LIMIT = tensor("max_tokens", "INT32", [[50]])


def edited(
    *tensors: Any, binary: bytes | None = None, fields: dict[str, Any] | None = None, **changes: Any
) -> tuple[Any, bytes]:
    """The JSON and the binary part of the edited body."""
    head = json.dumps((fields or {}) | {"inputs": tensors}).encode()
    headers = Headers([(LENGTH, str(len(head)))] if binary is not None else ())
    found = edit_infer(headers, head + (binary or b""), InferChanges(**changes))
    assert found is not None
    length = found.json_bytes or (len(head) if binary is not None else len(found.body))
    assert (found.json_bytes is None) == (binary is None or length == len(head))
    return json.loads(found.body[:length]), found.body[length:]


# tensors


@pytest.mark.parametrize(
    ("limit", "added"),
    [
        (
            "max_tokens",
            {
                "temperature": ("FP32", 0.5),
                "top_p": ("FP32", 0.25),
                "top_k": ("INT32", 4),
                "presence_penalty": ("FP32", 1.5),
                "frequency_penalty": ("FP32", -1.5),
                "repetition_penalty": ("FP32", 1.25),
                "seed": ("UINT64", 2**63 - 1),
            },
        ),
        (
            "request_output_len",
            {
                "temperature": ("FP32", 0.5),
                "runtime_top_p": ("FP32", 0.25),
                "runtime_top_k": ("INT32", 4),
                "presence_penalty": ("FP32", 1.5),
                "frequency_penalty": ("FP32", -1.5),
                "repetition_penalty": ("FP32", 1.25),
                "seed": ("UINT64", 2**63 - 1),
            },
        ),
        (
            "sampling_param_max_tokens",
            {
                "sampling_param_temperature": ("FP32", 0.5),
                "sampling_param_top_p": ("FP32", 0.25),
                "sampling_param_top_k": ("INT32", 4),
                "sampling_param_presence_penalty": ("FP32", 1.5),
                "sampling_param_frequency_penalty": ("FP32", -1.5),
                "sampling_param_seed": ("UINT64", 2**63 - 1),
            },
        ),
    ],
)
@pytest.mark.parametrize("shape", [[1, 1], [1]])
def test_overrides_have_the_names_types_and_shape_of_the_kind_of_model(
    limit: str, added: dict[str, tuple[str, float]], shape: list[int]
) -> None:
    overrides = {
        "temperature": 0.5,
        "top_p": 0.25,
        "top_k": 4,
        "presence_penalty": 1.5,
        "frequency_penalty": -1.5,
        "repetition_penalty": 1.25,
        "seed": 2**63 - 1,
        "min_p": 0.1,
        "stop": ("x",),
        "reasoning_effort": "low",
    }
    length = tensor(limit, "INT32", [50], shape=shape)

    head, _ = edited(TEXT, length, fields={"id": "7"}, overrides=overrides)

    wanted = [tensor(name, datatype, [value], shape=shape) for name, (datatype, value) in added.items()]
    assert head == {"id": "7", "inputs": [TEXT | {"shape": [1, 1]}, length, *wanted]}


def test_the_client_s_own_choice_is_replaced_where_it_stands() -> None:
    sent = tensor("temperature", "FP64", [[1.5]])

    head, _ = edited(TEXT, sent, LIMIT, overrides={"temperature": 0.0})

    assert head["inputs"][1] == {**sent, "shape": [1, 1], "data": [0.0]}
    assert len(head["inputs"]) == 3


def test_every_prompt_of_a_batch_gets_the_value() -> None:
    head, _ = edited(tensor("temperature", "FP32", [[1.5], [0.1]], shape=[2, 1]), overrides={"temperature": 0.5})

    assert head["inputs"][0]["data"] == [0.5, 0.5]


@pytest.mark.parametrize("datatype", CODES)
def test_a_binary_tensor_is_set_in_its_own_type_and_the_json_is_left_alone(datatype: str) -> None:
    code = f"<{CODES[datatype]}"
    width = struct.calcsize(code)
    tensors = [
        tensor("a", "INT8", size=2),
        tensor("temperature", datatype, size=2 * width),
        tensor("z", "INT8", size=1),
    ]
    value = 2 if datatype in WHOLE else 0.5

    _, tail = edited(*tensors, binary=b"\7\7" + struct.pack(code, 1) * 2 + b"\6", overrides={"temperature": value})

    assert tail == b"\7\7" + struct.pack(code, value) * 2 + b"\6"


def test_what_is_added_stands_in_the_json_and_the_binary_part_stays() -> None:
    size = tensor("max_tokens", "INT32", size=4)

    head, tail = edited(size, binary=b"\2\0\0\0", limit=1, overrides={"top_k": 1})

    assert head["inputs"][1] == tensor("top_k", "INT32", [1], shape=[1, 1])
    assert tail == b"\1\0\0\0"


@pytest.mark.parametrize("name", ["temperature", "sampling_param_temperature"])
def test_without_an_output_limit_only_what_is_there_is_set(name: str) -> None:
    head, _ = edited(TEXT, tensor(name, "FP32", [1.0]), overrides={"temperature": 0.5, "top_k": 1})

    assert [entry["name"] for entry in head["inputs"]] == ["text_input", name]
    assert head["inputs"][1]["data"] == [0.5]


def test_a_model_of_another_kind_is_left_alone() -> None:
    body = json.dumps({"inputs": [tensor("text", "BYTES", ["a"])]}).encode()

    assert edit_infer(Headers(()), body, InferChanges(limit=5, overrides={"temperature": 0.5})) is None


@pytest.mark.parametrize(
    ("sent", "value"),
    [
        (tensor("temperature", "BYTES", ["1"]), 0.5),
        (tensor("temperature", "BOOL", [True]), 0.5),
        (tensor("temperature", "", [1.0]), 0.5),
        (tensor("temperature", "INT32", [1]), 0.5),
        (tensor("temperature", "UINT8", [1]), 256),
        (tensor("temperature", "FP16", [1]), 1e6),
        (tensor("temperature", "FP32", []), 0.5),
        ({"name": "temperature", "datatype": "FP32", "shape": [1]}, 0.5),
        ({"name": "temperature", "datatype": "FP32", "parameters": {"shared_memory_region": "r"}}, 0.5),
    ],
)
def test_a_tensor_that_cannot_hold_what_is_set_for_it_is_refused(sent: Any, value: float) -> None:
    with pytest.raises(RequestError) as raised:
        edited(sent, overrides={"temperature": value})

    assert (raised.value.status, raised.value.param) == (400, "temperature")


@pytest.mark.parametrize(("datatype", "size"), [("FP32", 0), ("FP32", 3), ("BYTES", 4), ("INT32", 4)])
def test_a_binary_tensor_that_cannot_hold_what_is_set_for_it_is_refused(datatype: str, size: int) -> None:
    with pytest.raises(RequestError) as raised:
        edited(tensor("temperature", datatype, size=size), binary=bytes(size), overrides={"temperature": 0.5})

    assert raised.value.param == "temperature"


# priority


@pytest.mark.parametrize(
    ("fields", "parameters"),
    [
        ({}, {"priority": 2}),
        ({"parameters": None}, {"priority": 2}),
        ({"parameters": {}}, {"priority": 2}),
        ({"parameters": {"priority": 1}}, {"priority": 2}),
        ({"parameters": {"priority": "high", "timeout": 1000}}, {"priority": 2, "timeout": 1000}),
    ],
)
def test_tritons_priority_is_a_parameter_of_the_request(fields: dict[str, Any], parameters: object) -> None:
    head, _ = edited(tensor("text", "BYTES", ["a"]), fields=fields, priority=2)

    assert head["parameters"] == parameters
    assert [entry["name"] for entry in head["inputs"]] == ["text"]


@pytest.mark.parametrize("parameters", [b"[]", b'"a"', b"7", b'{"\xff":1}'])
def test_parameters_that_are_none_are_a_request_error(parameters: bytes) -> None:
    with pytest.raises(RequestError) as raised:
        edit_infer(Headers(()), b'{"inputs":[],"parameters":%b}' % parameters, InferChanges(priority=2))

    assert (raised.value.status, raised.value.param) == (400, "parameters")


# anything

ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
NAMES = ["temperature", "top_k", "runtime_top_k", "sampling_param_seed", "x", "y"]
LIMITS = ["max_tokens", "sampling_param_max_tokens", "request_output_len"]
PLACES = st.tuples(st.sampled_from(["FP32", "FP64", "INT64"]), st.integers(1, 3), st.booleans())


@settings(deadline=None)
@given(
    asked=st.integers(1, 2**31 - 1),
    limit=st.none() | st.integers(1, 2**31 - 1),
    limits=st.dictionaries(st.sampled_from(LIMITS), st.tuples(st.sampled_from(WHOLE[2:4]), st.booleans())),
    tensors=st.dictionaries(st.sampled_from(NAMES), PLACES),
    overrides=st.dictionaries(st.sampled_from(["temperature", "top_k", "seed", "stop", "min_p"]), st.integers(0, 99)),
    priority=st.none() | st.integers(1, 9),
    indent=st.none() | st.integers(0, 3),
    extra=st.dictionaries(st.text(max_size=4).map("x{}".format), ANYTHING, max_size=2),
    parameters=st.dictionaries(st.text(max_size=3), ANYTHING, max_size=2),
)
def test_an_edited_body_reads_back_as_the_change_and_nothing_else(
    asked: int,
    limit: int | None,
    limits: dict[str, tuple[str, bool]],
    tensors: dict[str, tuple[str, int, bool]],
    overrides: dict[str, int],
    priority: int | None,
    indent: int | None,
    extra: dict[str, Any],
    parameters: dict[str, Any],
) -> None:
    sent = {name: (kind, 1, is_binary) for name, (kind, is_binary) in limits.items()} | tensors
    described, binary = [], b""
    for name, (kind, elements, is_binary) in sent.items():
        values = [asked if name in limits else 77] * elements
        data = struct.pack("<" + CODES[kind] * elements, *values)
        described.append(tensor(name, kind, values, size=len(data) if is_binary else None))
        binary += data if is_binary else b""
    fields = extra | {"inputs": described, "parameters": parameters}
    head = json.dumps(fields, indent=indent, ensure_ascii=False).encode()
    headers, body = Headers([(LENGTH, str(len(head)))]), head + binary
    changes = InferChanges(limit=limit, overrides=overrides, priority=priority)
    before = inspect(INFER, headers, body)

    found = edit_infer(headers, body, changes)

    after_headers = headers if not found or found.json_bytes is None else Headers([(LENGTH, str(found.json_bytes))])
    after_body = found.body if found else body
    after = inspect(INFER, after_headers, after_body)
    assert after.max_output_tokens == (limit if limit is not None and limits else before.max_output_tokens)
    assert after.output_limit_fields == before.output_limit_fields
    values, rest = _read(after_headers, after_body)
    expected = {name: [asked if name in limits else 77] * elements for name, (_, elements, _) in sent.items()}
    expected |= {name: [limit] for name in limits if limit is not None}
    for override, value in overrides.items():
        dialects = ({override}, {f"runtime_{override}"}, {f"sampling_param_{override}"})
        for name in set[str]().union(*dialects) & sent.keys() & KNOWN:
            expected[name] = [value] * sent[name][1]
        if (name := _added(override, limits)) and name not in sent:
            expected[name] = [value]
    assert values == expected
    assert rest == _read(headers, body)[1] | ({"parameters": parameters | {"priority": priority}} if priority else {})


KNOWN = {
    *("temperature", "top_k", "seed", "runtime_top_k"),
    *("sampling_param_temperature", "sampling_param_top_k", "sampling_param_seed"),
}


def _added(override: str, limits: dict[str, Any]) -> str | None:
    if override in ("stop", "min_p") or not limits:
        return None
    if "sampling_param_max_tokens" in limits:
        return f"sampling_param_{override}"
    return "runtime_top_k" if override == "top_k" and "request_output_len" in limits else override


def _read(headers: Headers, body: bytes) -> tuple[dict[str, list[Any]], dict[str, Any]]:
    """The values of all tensors, whichever way they are sent, and the rest of the JSON."""
    found, spans = split_infer(headers, body)
    rest = json.loads(body[: json_length(headers, body)])
    rest.pop("inputs")
    return {tensor.name: _values(tensor, spans.get(tensor.name), body) for tensor in found}, rest


def _values(tensor: Tensor, span: BinarySpan | None, body: bytes) -> list[Any]:
    if span is None:
        return list(json.loads(bytes(tensor.data)))
    code = CODES[tensor.datatype]
    return list(
        struct.unpack("<" + code * ((span.end - span.start) // struct.calcsize(code)), body[span.start : span.end])
    )
