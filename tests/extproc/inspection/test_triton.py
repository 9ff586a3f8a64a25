"""Triton's generate and infer bodies, as decisions read them: both tensor dialects, JSON and binary data."""

from __future__ import annotations

import json
import struct
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from extproc.headers import Headers
from extproc.inspection import inspect
from extproc.inspection.request import MAX_OUTPUT_TOKENS, InferenceRequest, Prompt, RequestError
from extproc.inspection.target import Operation, Target
from extproc.inspection.triton import BinarySpan, split_infer
from extproc.tokens import estimate_tokens
from headgate.policy.model import Protocol

GENERATE = Target(Protocol.TRITON, Operation.GENERATE, "assistant", "/generate")
GENERATE_STREAM = Target(Protocol.TRITON, Operation.GENERATE_STREAM, "assistant", "/generate_stream")
INFER = Target(Protocol.TRITON, Operation.INFER, "assistant", "/infer")
HELLO = "Hello, who are you?"
HELLO_TOKENS = estimate_tokens(HELLO)
DEEP = "[" * 100_000 + "]" * 100_000
LENGTH = "inference-header-content-length"


def generate(target: Target = GENERATE, **fields: Any) -> InferenceRequest:
    return inspect(target, Headers(()), json.dumps(fields).encode())


def text(*elements: str) -> bytes:
    """A BYTES tensor's binary data."""
    return b"".join(struct.pack("<I", len(element.encode())) + element.encode() for element in elements)


def tensor(name: str, datatype: str, data: object = None, *, binary: object = None) -> dict[str, object]:
    described: dict[str, object] = {"name": name, "shape": [1, 1], "datatype": datatype}
    if binary is not None:
        return described | {"parameters": {"binary_data_size": binary}}
    return described | {"data": data}


def infer(*tensors: object, binary: bytes = b"", length: str | None = None) -> InferenceRequest:
    """Read an infer body; `length` is the declared length of its JSON, right where not given."""
    head = json.dumps({"inputs": tensors}).encode()
    declared = str(len(head)) if length is None and binary else length
    return inspect(INFER, Headers([(LENGTH, declared)] if declared is not None else ()), head + binary)


def attempt(target: Target, body: bytes, length: str | None = None) -> InferenceRequest | None:
    """The request; None when it is refused the way bodies are refused."""
    try:
        return inspect(target, Headers([(LENGTH, length)] if length is not None else ()), body)
    except RequestError:
        return None


def refused(body: bytes, target: Target = INFER, length: str | None = None) -> RequestError:
    with pytest.raises(RequestError) as raised:
        inspect(target, Headers([(LENGTH, length)] if length is not None else ()), body)
    assert raised.value.status == 400
    return raised.value


# generate


def test_the_stock_ensembles_generate_is_read_whole() -> None:
    assert generate(text_input=HELLO, max_tokens=50, stream=True, bad_words="") == InferenceRequest(
        protocol=Protocol.TRITON,
        operation=Operation.GENERATE,
        model="assistant",
        stream=True,
        prompt=Prompt(size_bytes=19, tokens=HELLO_TOKENS, texts=(HELLO,), opening=(HELLO,), messages=1),
        prompt_tokens=HELLO_TOKENS,
        max_output_tokens=50,
        output_limit_fields=("max_tokens",),
    )


def test_the_llmapi_models_names_are_known_too() -> None:
    request = generate(text_input=HELLO, sampling_param_max_tokens=50, streaming=True)

    assert (request.max_output_tokens, request.output_limit_fields) == (50, ("sampling_param_max_tokens",))
    assert request.stream


@pytest.mark.parametrize(
    ("fields", "stream"),
    [({}, False), ({"stream": False}, False), ({"stream": [True]}, True), ({"streaming": [True]}, True)],
)
def test_a_stream_is_asked_for_by_the_field_or_by_the_path(fields: dict[str, object], stream: bool) -> None:
    assert generate(text_input=HELLO, **fields).stream is stream
    assert generate(GENERATE_STREAM, text_input=HELLO, **fields).stream


def test_a_list_of_one_element_is_the_element() -> None:
    assert generate(text_input=[HELLO], max_tokens=[50]) == generate(text_input=HELLO, max_tokens=50)


@pytest.mark.parametrize(
    ("text_input", "prompt_bytes", "messages"),
    [("", 0, 1), ([], 0, 0), (None, 0, 0), (["a", "bc"], 3, 2), ("\u00e9", 2, 1)],
)
def test_text_counts_by_its_bytes(text_input: object, prompt_bytes: int, messages: int) -> None:
    request = generate(text_input=text_input)

    assert (request.prompt.size_bytes, request.prompt.messages) == (prompt_bytes, messages)


def test_a_model_without_text_has_no_prompt() -> None:
    request = generate(image="AAAA", threshold=0.5)

    assert (request.prompt_tokens, request.prompt.messages, request.max_output_tokens) == (0, 0, None)


@pytest.mark.parametrize("field", ["max_tokens", "sampling_param_max_tokens"])
@pytest.mark.parametrize(
    "value",
    ["0", "-1", "[0]", "2147483648", "1" * 30, "1" * 5000, '"5"', "true", "[true]", "1.5", "[1,2]", "[]", "[[5]]"],
)
def test_a_limit_has_to_be_one_whole_number_a_model_can_take(field: str, value: str) -> None:
    error = refused(f'{{"text_input":"a","{field}":{value}}}'.encode(), GENERATE)

    assert error.param is not None
    assert error.param.startswith(field)


def test_a_null_limit_is_none() -> None:
    assert generate(text_input="a", max_tokens=None).output_limit_fields == ()


def test_two_limits_have_to_be_equal_because_which_one_counts_depends_on_the_model() -> None:
    both = generate(text_input="a", max_tokens=5, sampling_param_max_tokens=5)
    error = refused(b'{"text_input":"a","max_tokens":1,"sampling_param_max_tokens":100000}', GENERATE)

    assert both.output_limit_fields == ("max_tokens", "sampling_param_max_tokens")
    assert (error.message, error.param) == (
        "'max_tokens' and 'sampling_param_max_tokens' have to be equal.",
        "max_tokens",
    )


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"\xef\xbb\xbf{}",
        b'{"text_input":7}',
        b'{"text_input":[["a"]]}',
        b'{"text_input":"\xff"}',
        b'{"text_input":"\\udc00"}',
        b'{"text_input":"a","temperature":NaN}',
        b'{"text_input":"a","stream":1}',
        f'{{"text_input":{DEEP}}}'.encode(),
        f'{{"text_input":"a","x":{DEEP}}}'.encode(),
    ],
)
def test_a_body_that_is_no_generate_is_a_request_error(body: bytes) -> None:
    assert refused(body, GENERATE).message


# infer, JSON


@pytest.mark.parametrize("data", [HELLO, [HELLO], [[HELLO]], [[[HELLO]], []]])
def test_tensor_data_is_read_however_it_is_nested(data: object) -> None:
    request = infer(tensor("text_input", "BYTES", data), tensor("max_tokens", "INT32", [[50]]))

    assert (request.prompt.size_bytes, request.prompt.messages) == (19, 1)
    assert (request.max_output_tokens, request.output_limit_fields) == (50, ("max_tokens",))


def test_all_nested_strings_count() -> None:
    assert infer(tensor("text_input", "BYTES", [["a", "bb"], ["ccc"]])).prompt.size_bytes == 6


@pytest.mark.parametrize("name", ["max_tokens", "sampling_param_max_tokens", "request_output_len"])
def test_the_limit_goes_by_three_names(name: str) -> None:
    assert infer(tensor(name, "INT32", [7])).output_limit_fields == (name,)


def test_tensors_no_decision_needs_are_not_looked_into() -> None:
    request = infer(tensor("image", "FP32", [1.5, None, {"a": []}]), {"name": "odd"}, tensor("n", "INT8"))

    assert request.prompt_tokens == 0


@pytest.mark.parametrize(
    ("tensors", "param"),
    [
        ([{"datatype": "BYTES"}], "inputs[0]"),
        ([{"name": 7}], "inputs[0].name"),
        ([{"name": "text_input"}], "text_input"),
        ([{"name": "text_input", "data": None}], "text_input"),
        ([{"name": "text_input", "data": [1]}], "text_input"),
        ([{"name": "text_input", "data": ["a", {"b": 1}]}], "text_input"),
        ([{"name": "text_input", "shape": "1"}], "inputs[0].shape"),
        ([{"name": "text_input", "parameters": []}], "inputs[0].parameters"),
        ([{"name": "max_tokens", "data": []}], "max_tokens"),
        ([{"name": "max_tokens", "data": [1, 2]}], "max_tokens"),
        ([{"name": "max_tokens", "data": ["5"]}], "max_tokens"),
        ([{"name": "max_tokens", "data": [True]}], "max_tokens"),
        ([{"name": "max_tokens", "data": [5.0]}], "max_tokens"),
        ([{"name": "max_tokens", "data": [0]}], "max_tokens"),
        ([{"name": "max_tokens", "data": [-1]}], "max_tokens"),
        ([{"name": "max_tokens", "data": [2**31]}], "max_tokens"),
        ([{"name": "max_tokens", "data": [1]}, {"name": "request_output_len", "data": [9]}], "max_tokens"),
        ([{"name": "max_tokens", "data": [1]}, {"name": "max_tokens", "data": [9]}], "inputs"),
        ([{"name": "x", "data": [1]}, {"name": "x", "data": [1]}], "inputs"),
        ("inputs", "inputs"),
        (None, "inputs"),
    ],
)
def test_a_body_that_is_no_infer_is_a_request_error_at_the_tensor_at_fault(tensors: object, param: str) -> None:
    assert refused(json.dumps({"inputs": tensors}).encode()).param == param


@pytest.mark.parametrize(
    "body",
    [
        b"{}",
        b'{"inputs":[{"name":"text_input","data":["\xff"]}]}',
        b'{"inputs":[{"name":"text_input","parameters":{"binary_data_size":"\xff"}}]}',
        b'{"inputs":[{"name":"text_input","data":["\\ud800"]}]}',
        f'{{"inputs":[{{"name":"text_input","data":{DEEP}}}]}}'.encode(),
        f'{{"inputs":[{{"name":"x","parameters":{{"binary_data_size":{DEEP}}}}}]}}'.encode(),
        f'{{"inputs":{DEEP}}}'.encode(),
        f'{{"inputs":[{{"name":"max_tokens","data":[{"1" * 5000}]}}]}}'.encode(),
    ],
)
def test_bytes_that_only_raw_data_hides_are_a_request_error_too(body: bytes) -> None:
    assert refused(body).message


@pytest.mark.parametrize(
    "body",
    [
        b'{"inputs":[{"name":"max_tokens","data":[100000],"data":[5]}]}',
        b'{"inputs":[{"name":"max_tokens","data":[100000],"d\\u0061ta":[5]}]}',
        b'{"inputs":[{"name":"max_tokens","data":[100000]}],"inputs":[{"name":"max_tokens","data":[5]}]}',
        b'{ "inputs" : [ { "name" : "x" , "parameters" : {"binary_data_size":0, "binary_data_size":0} } ] }',
        b'{"id":"1","id":"2","inputs":[]}',
        b'{"inputs":[{"name":"max_tokens","data":[5],"\xff":1}]}',
    ],
)
def test_a_repeated_key_is_refused_because_triton_reads_the_first(body: bytes) -> None:
    assert refused(body).message


@pytest.mark.parametrize("indent", [None, 0, 4])
def test_white_space_and_escaped_values_are_no_repetition(indent: int | None) -> None:
    tensors = [
        tensor("text_input", "BYTES", ['a "data" \\ /\n\u00e9\U0001f600 "data"']),
        tensor("max_tokens", "INT32", [5]),
    ]
    body = json.dumps({"id": "\u00e9", "inputs": tensors, "parameters": {"a": 1.0e2}}, indent=indent).encode()

    assert inspect(INFER, Headers(()), body).max_output_tokens == 5


def test_deep_and_wide_data_is_flattened_in_one_pass() -> None:
    depth, width = 400, 200_000
    data = "[" + "[" * depth + '"a"' + "]" * depth + ',"b"' * width + "]"
    body = f'{{"inputs":[{{"name":"text_input","data":{data}}}]}}'.encode()

    # A pass for every level would look at eighty million elements.
    assert inspect(INFER, Headers(()), body).prompt.messages == width + 1


# infer, binary


def test_binary_tensors_are_read_in_the_order_of_their_names() -> None:
    prompt, limit = text(HELLO), struct.pack("<i", 50)

    request = infer(
        tensor("text_input", "BYTES", binary=len(prompt)),
        tensor("image", "FP32", binary=8),
        tensor("max_tokens", "INT32", binary=4),
        binary=prompt + b"\0" * 8 + limit,
    )

    assert (request.prompt.size_bytes, request.prompt_tokens, request.max_output_tokens) == (19, HELLO_TOKENS, 50)


def test_json_and_binary_tensors_mix() -> None:
    request = infer(
        tensor("text_input", "BYTES", binary=len(text(HELLO, "b"))),
        tensor("max_tokens", "INT32", [[50]]),
        binary=text(HELLO, "b"),
    )

    assert (request.prompt.messages, request.max_output_tokens) == (2, 50)


@pytest.mark.parametrize(
    ("datatype", "data", "limit"),
    [
        ("INT32", struct.pack("<i", 7), 7),
        ("UINT32", struct.pack("<I", MAX_OUTPUT_TOKENS), MAX_OUTPUT_TOKENS),
        ("INT64", struct.pack("<q", 7), 7),
        ("UINT64", struct.pack("<Q", 7), 7),
    ],
)
def test_a_binary_limit_is_read_by_its_datatype(datatype: str, data: bytes, limit: int) -> None:
    assert infer(tensor("max_tokens", datatype, binary=len(data)), binary=data).max_output_tokens == limit


@pytest.mark.parametrize(
    ("datatype", "data"),
    [
        ("INT32", struct.pack("<i", -1)),
        ("INT32", struct.pack("<i", 0)),
        ("INT64", struct.pack("<q", -1)),
        ("UINT32", struct.pack("<I", 2**32 - 1)),
        ("UINT64", struct.pack("<Q", 2**64 - 1)),
        ("INT32", b""),
        ("INT32", b"\1\0\0"),
        ("INT32", struct.pack("<ii", 1, 1)),
        ("INT8", b"\1"),
        ("FP32", struct.pack("<f", 7)),
        ("", b"\1\0\0\0"),
        ("int32", b"\1\0\0\0"),
    ],
)
def test_a_binary_limit_that_is_no_positive_integer_is_refused(datatype: str, data: bytes) -> None:
    with pytest.raises(RequestError) as raised:
        infer(tensor("max_tokens", datatype, binary=len(data)), binary=data or b"")

    assert raised.value.param == "max_tokens"


@pytest.mark.parametrize(
    "data",
    [b"\1", b"\0\0\0", b"\1\0\0\0", b"\xff\xff\xff\xff", b"\5\0\0\0abcd", text("a") + b"\1", text("a") + b"\2\0\0\0x"],
)
def test_a_text_tensor_cut_short_is_refused(data: bytes) -> None:
    with pytest.raises(RequestError) as raised:
        infer(tensor("text_input", "BYTES", binary=len(data)), binary=data)

    assert raised.value.param == "text_input"


def test_binary_text_that_is_not_utf_8_still_counts() -> None:
    assert infer(tensor("text_input", "BYTES", binary=6), binary=b"\2\0\0\0\xff\xfe").prompt.messages == 1


@pytest.mark.parametrize("size", [-1, 9, 2**63, 10**30, 1.5, 8.0, "8", True, None, [8], {}])
def test_a_binary_data_size_that_lies_is_refused(size: object) -> None:
    described = {"name": "x", "datatype": "FP32", "shape": [2], "parameters": {"binary_data_size": size}}

    with pytest.raises(RequestError) as raised:
        infer(described, binary=b"\0" * 8)

    assert raised.value.param == "inputs"


@pytest.mark.parametrize(
    "places",
    [
        {"data": [5], "parameters": {"shared_memory_region": "r"}},
        {"data": [5], "parameters": {"binary_data_size": 4}},
        {"parameters": {"binary_data_size": 4, "shared_memory_region": "r"}},
    ],
)
@pytest.mark.parametrize("name", ["max_tokens", "text_input", "temperature"])
def test_a_tensor_with_its_data_in_two_places_is_refused(name: str, places: dict[str, object]) -> None:
    with pytest.raises(RequestError) as raised:
        infer({"name": name, "datatype": "INT32", "shape": [1]} | places, binary=b"\1\0\0\0")

    assert "two places" in raised.value.message


@pytest.mark.parametrize("name", ["max_tokens", "text_input"])
def test_what_lies_in_shared_memory_cannot_be_read(name: str) -> None:
    described = {"name": name, "datatype": "INT32", "shape": [1], "parameters": {"shared_memory_region": "r"}}

    assert refused(json.dumps({"inputs": [described]}).encode()).param == name


def test_sizes_that_fit_one_by_one_but_not_together_are_refused() -> None:
    with pytest.raises(RequestError):
        infer(tensor("a", "INT8", binary=5), tensor("b", "INT8", binary=4), binary=b"\0" * 8)


def test_binary_data_without_a_declared_length_is_refused() -> None:
    body = json.dumps({"inputs": [tensor("x", "INT8", binary=4)]}).encode()

    assert refused(body + b"\0\0\0\0").message.startswith("The request body is not valid JSON")
    assert refused(body).param == "inputs"


@pytest.mark.parametrize(
    "length", ["-1", "+5", "0x10", "5.0", "1e2", "abc", " 5", "5,5", "9999", "1" * 18, "1" * 5000, "\u0665"]
)
def test_a_declared_json_length_that_cannot_be_is_refused(length: str) -> None:
    body = b'{"inputs":[]}'

    assert refused(body, length=length).message == "'Inference-Header-Content-Length' does not fit the body."


@pytest.mark.parametrize("length", ["0", "1", "12"])
def test_a_declared_length_that_cuts_the_json_is_refused(length: str) -> None:
    assert refused(b'{"inputs":[]}', length=length).message


def test_a_declared_length_beyond_the_json_takes_in_binary_bytes() -> None:
    assert refused(b'{"inputs":[]}\x00', length="14").message.startswith("The request body is not valid JSON")


def test_the_spans_of_binary_tensors_lie_one_after_the_other() -> None:
    head = json.dumps(
        {"inputs": [tensor("a", "INT8", binary=3), tensor("b", "INT8", [1]), tensor("c", "INT8", binary=0)]}
    )
    body = head.encode() + b"\1\2\3"

    tensors, spans = split_infer(Headers([(LENGTH, str(len(head)))]), body)

    assert [entry.name for entry in tensors] == ["a", "b", "c"]
    assert spans == {"a": BinarySpan(len(head), len(head) + 3), "c": BinarySpan(len(head) + 3, len(head) + 3)}


# anything

ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=4),
)
NAMES = st.sampled_from(["text_input", "max_tokens", "sampling_param_max_tokens", "request_output_len", "image"])
GENERATES = st.fixed_dictionaries(
    {},
    optional={
        "text_input": st.text(max_size=9) | st.lists(st.text(max_size=4)) | ANYTHING,
        "max_tokens": st.integers() | st.lists(st.integers(), max_size=2) | ANYTHING,
        "sampling_param_max_tokens": st.integers() | ANYTHING,
        "stream": st.booleans() | ANYTHING,
        "streaming": ANYTHING,
    },
)
TENSORS = st.fixed_dictionaries(
    {"name": NAMES | ANYTHING},
    optional={
        "data": st.lists(st.text(max_size=4) | st.integers(), max_size=3) | ANYTHING,
        "shape": st.lists(st.integers(), max_size=2) | ANYTHING,
        "datatype": st.sampled_from(["BYTES", "INT32", "UINT64"]) | ANYTHING,
        "parameters": st.fixed_dictionaries({"binary_data_size": st.integers(-2, 30) | ANYTHING}) | ANYTHING,
    },
)


@settings(deadline=None)
@given(target=st.sampled_from([GENERATE, GENERATE_STREAM, INFER]), body=st.binary(max_size=300))
def test_any_bytes_are_a_request_or_a_request_error(target: Target, body: bytes) -> None:
    request = attempt(target, body)

    assert request is None or request.protocol is Protocol.TRITON


@settings(deadline=None)
@given(body=GENERATES)
def test_any_json_like_a_generate_is_a_request_or_a_request_error(body: dict[str, object]) -> None:
    request = attempt(GENERATE, json.dumps(body).encode())

    if request is not None:
        assert request.model == "assistant"
        assert request.max_output_tokens is None or 1 <= request.max_output_tokens <= MAX_OUTPUT_TOKENS


@settings(deadline=None)
@given(
    tensors=st.lists(TENSORS, max_size=3) | ANYTHING,
    binary=st.binary(max_size=40),
    slip=st.integers(-3, 3) | st.just(0),
)
def test_any_json_like_an_infer_with_any_binary_tail_is_a_request_or_a_request_error(
    tensors: object, binary: bytes, slip: int
) -> None:
    head = json.dumps({"inputs": tensors}).encode()

    request = attempt(INFER, head + binary, str(len(head) + slip))

    if request is not None:
        assert request.max_output_tokens is None or 1 <= request.max_output_tokens <= MAX_OUTPUT_TOKENS


@settings(deadline=None)
@given(length=st.text(max_size=6) | st.integers().map(str), body=st.binary(max_size=60))
def test_any_declared_length_is_survived(length: str, body: bytes) -> None:
    request = attempt(INFER, b'{"inputs":[]}' + body, length)

    assert request is None or request.prompt.messages == 0
