"""The answer to every odd request of docs/inspection.md, in every API: who is refused, and who is read as what."""

from __future__ import annotations

import gzip
import json
import struct
from dataclasses import dataclass
from typing import Any

import pytest
from tritonclient.grpc import service_pb2 as triton

from extproc.headers import Headers
from extproc.inspection import inspect
from extproc.inspection.content import plain_body
from extproc.inspection.request import MAX_OUTPUT_TOKENS, InferenceRequest, RequestError
from extproc.inspection.target import Target, parse_target

REFUSED = "refused"


@dataclass(frozen=True)
class Dialect:
    """One API's request: its path, and its JSON with room for the prompt, the output limit and further fields."""

    path: str
    frame: str
    limit: str = "max_tokens"

    @property
    def target(self) -> Target:
        return parse_target("POST", self.path)

    def body(self, *, text: str = '"Hello"', limit: str = "5", more: str = "") -> bytes:
        """Text is put in as latin-1, so that any byte can be."""
        filled = self.frame.replace("TEXT", text).replace("LIMIT", limit)
        return (filled[:-1] + more + "}").encode("latin-1")

    def read(self, body: bytes, headers: Headers | None = None) -> InferenceRequest:
        return inspect(self.target, headers or Headers(()), body)


TENSORS = (
    '{"inputs":[{"name":"text_input","datatype":"BYTES","shape":[1],"data":[TEXT]},'
    '{"name":"max_tokens","datatype":"INT32","shape":[1],"data":[LIMIT]}]}'
)
MESSAGES = '{"model":"m","messages":[{"role":"user","content":TEXT}],"max_tokens":LIMIT}'
DIALECTS = {
    "chat": Dialect("/v1/chat/completions", MESSAGES),
    "completion": Dialect("/v1/completions", '{"model":"m","prompt":TEXT,"max_tokens":LIMIT}'),
    "embeddings": Dialect("/v1/embeddings", '{"model":"m","input":TEXT,"max_tokens":LIMIT}'),
    "responses": Dialect(
        "/v1/responses", '{"model":"m","input":TEXT,"max_output_tokens":LIMIT}', limit="max_output_tokens"
    ),
    "messages": Dialect("/v1/messages", MESSAGES),
    "generate": Dialect("/v2/models/m/generate", '{"text_input":TEXT,"max_tokens":LIMIT}'),
    "infer": Dialect("/v2/models/m/infer", TENSORS),
}
PYTHON = ("chat", "completion", "embeddings", "responses", "messages")
"""The APIs of servers written in Python."""
EVERYWHERE = pytest.mark.parametrize("name", DIALECTS)


def refused(name: str, body: bytes) -> RequestError:
    with pytest.raises(RequestError) as raised:
        DIALECTS[name].read(body)
    assert raised.value.status == 400
    return raised.value


# JSON


@EVERYWHERE
def test_the_frames_themselves_are_requests(name: str) -> None:
    request = DIALECTS[name].read(DIALECTS[name].body())

    assert (request.model, request.prompt.size_bytes) == ("m", 5)
    assert request.max_output_tokens == (None if name == "embeddings" else 5)


@EVERYWHERE
@pytest.mark.parametrize("body", [b"", b" ", b"null", b"[]", b"7", b'"{}"', b"{", b"{}{}", b"hello", b"\0"])
def test_what_is_no_json_object_is_refused(name: str, body: bytes) -> None:
    assert refused(name, body)


@EVERYWHERE
@pytest.mark.parametrize(
    "value",
    [
        "NaN",
        "Infinity",
        "-Infinity",
        "01",
        "1.",
        "+1",
        "0x1",
        "'a'",
        '"\x01"',
        '"\n"',
        '"\\x"',
        '"\\ud83d"',
        '"\\udc00"',
    ],
)
def test_what_json_has_not_is_refused_wherever_it_stands(name: str, value: str) -> None:
    dialect = DIALECTS[name]

    assert refused(name, dialect.body(text=value))
    assert refused(name, dialect.body(limit=value))
    assert refused(name, dialect.body(more=f',"x":{value}'))
    assert refused(name, dialect.body(more=f',"x":[{{"y":{value}}}]'))


@EVERYWHERE
def test_a_byte_order_mark_is_refused(name: str) -> None:
    assert refused(name, b"\xef\xbb\xbf" + DIALECTS[name].body())


@EVERYWHERE
@pytest.mark.parametrize(("opening", "closing"), [("[", "]"), ('{"a":', "}")])
def test_nine_hundred_levels_are_read_and_a_thousand_refused(name: str, opening: str, closing: str) -> None:
    dialect = DIALECTS[name]
    deep, too_deep = (f',"x":{opening * levels}1{closing * levels}' for levels in (900, 1000))

    assert dialect.read(dialect.body(more=deep)).prompt.size_bytes == 5
    assert refused(name, dialect.body(more=too_deep)).message == "The request body is nested too deeply."


# text


@pytest.mark.parametrize("name", PYTHON)
def test_bytes_that_are_no_utf_8_pass_where_text_is_only_weighed(name: str) -> None:
    dialect = DIALECTS[name]

    assert dialect.read(dialect.body(text='"\xff\xfe"')).prompt.size_bytes == 2
    assert dialect.read(dialect.body(more=',"x":"\xff","\xfe":1')).prompt.size_bytes == 5


@pytest.mark.parametrize("name", ["generate", "infer"])
def test_bytes_that_are_no_utf_8_are_refused_where_text_or_names_are_read(name: str) -> None:
    assert refused(name, DIALECTS[name].body(text='"\xff"'))
    assert refused(name, DIALECTS[name].body(more=',"\xff":1'))


@pytest.mark.parametrize("name", PYTHON)
def test_a_model_that_is_no_utf_8_is_refused(name: str) -> None:
    assert refused(name, DIALECTS[name].body().replace(b'"m"', b'"\xff"'))


PROMPTS = {
    "chat": "messages[0].content",
    "completion": "prompt",
    "embeddings": "input",
    "responses": "input",
    "messages": "messages[0].content",
    "generate": "text_input",
    "infer": "text_input",
}


@EVERYWHERE
@pytest.mark.parametrize("value", ["7", "true", "1.5", "{}"])
def test_a_prompt_of_another_type_is_refused_by_its_name(name: str, value: str) -> None:
    assert refused(name, DIALECTS[name].body(text=value)).param == PROMPTS[name]


@pytest.mark.parametrize("name", PYTHON)
@pytest.mark.parametrize("value", [b"7", b"null", b'["m"]', b"{}"])
def test_a_model_of_another_type_is_refused_by_its_name(name: str, value: bytes) -> None:
    assert refused(name, DIALECTS[name].body().replace(b'"m"', value)).param == "model"


@pytest.mark.parametrize("name", PYTHON)
@pytest.mark.parametrize("value", ["1", '"true"', "[true]"])
def test_a_stream_flag_of_another_type_is_refused_by_its_name(name: str, value: str) -> None:
    assert refused(name, DIALECTS[name].body(more=f',"stream":{value}')).param == "stream"


@pytest.mark.parametrize(
    ("name", "body", "param"),
    [
        ("chat", b'{"model":"m","messages":[]}', "messages"),
        ("chat", b'{"model":"m"}', "messages"),
        ("messages", b'{"model":"m","messages":[],"max_tokens":5}', "messages"),
        ("messages", b'{"model":"m","max_tokens":5}', "messages"),
        ("completion", b'{"model":"m"}', "prompt"),
        ("embeddings", b'{"model":"m","input":[]}', "input"),
        ("embeddings", b'{"model":"m"}', "input"),
        ("responses", b'{"model":"m","input":[]}', "input"),
        ("responses", b'{"model":"m"}', "input"),
        ("infer", b'{"inputs":7}', "inputs"),
    ],
)
def test_a_request_without_a_prompt_is_refused(name: str, body: bytes, param: str) -> None:
    assert refused(name, body).param == param


# output limits

NO_LIMITS = ["0", "-1", str(MAX_OUTPUT_TOKENS + 1), "9" * 40, "9" * 5000, "1.5", "5.0", "1e2", '"5"', "true", "{}"]


@EVERYWHERE
@pytest.mark.parametrize("value", NO_LIMITS, ids=lambda value: value[:12])
def test_a_limit_no_model_could_take_is_refused_by_its_name(name: str, value: str) -> None:
    dialect = DIALECTS[name]
    body = dialect.body(limit=value)

    if name == "embeddings":
        assert dialect.read(body).max_output_tokens is None
    else:
        assert (refused(name, body).param or "").startswith(dialect.limit)


@EVERYWHERE
@pytest.mark.parametrize("value", ["1", str(MAX_OUTPUT_TOKENS)])
def test_the_least_and_the_largest_limit_are_taken(name: str, value: str) -> None:
    expected = None if name == "embeddings" else int(value)

    assert DIALECTS[name].read(DIALECTS[name].body(limit=value)).max_output_tokens == expected


@EVERYWHERE
def test_a_null_limit_is_none_where_none_is_needed(name: str) -> None:
    body = DIALECTS[name].body(limit="null")

    if name in ("messages", "infer"):
        assert refused(name, body).param == "max_tokens"
    else:
        assert DIALECTS[name].read(body).max_output_tokens is None


# keys twice


@pytest.mark.parametrize("name", PYTHON)
def test_of_a_repeated_key_the_last_counts_for_servers_in_python(name: str) -> None:
    dialect = DIALECTS[name]

    request = dialect.read(dialect.body(more=f',"{dialect.limit}":9,"model":"other"'))

    assert request.model == "other"
    assert request.max_output_tokens == (None if name == "embeddings" else 9)


@pytest.mark.parametrize(
    ("name", "more"),
    [
        ("generate", ',"max_tokens":9'),
        ("generate", ',"max\\u005ftokens":9'),
        ("generate", ',"x":1,"x":1'),
        ("infer", ',"inputs":[]'),
        ("infer", ',"input\\u0073":[]'),
        ("infer", ',"parameters":{},"parameters":{}'),
    ],
)
def test_a_repeated_or_escaped_key_is_refused_where_triton_reads_the_first(name: str, more: str) -> None:
    assert "repeated" in refused(name, DIALECTS[name].body(more=more)).message


# more of OpenAI's


@pytest.mark.parametrize("name", ["chat", "completion"])
@pytest.mark.parametrize("value", ["0", "-1", "129", "1.5", '"2"', "true"])
def test_a_number_of_choices_out_of_range_is_refused(name: str, value: str) -> None:
    assert refused(name, DIALECTS[name].body(more=f',"n":{value}')).param == "n"


@pytest.mark.parametrize("name", PYTHON)
def test_options_have_a_length_beyond_which_they_are_refused(name: str) -> None:
    body = DIALECTS[name].body
    long = '{"x":"%s"}'

    assert DIALECTS[name].read(body(more=f',"stream_options":{long % ("a" * 1016)},"service_tier":"{"a" * 64}"'))
    assert refused(name, body(more=f',"stream_options":{long % ("a" * 1017)}')).param == "stream_options"
    assert refused(name, body(more=f',"service_tier":"{"a" * 65}"')).param == "service_tier"


def test_results_of_tools_count_as_text_beyond_eight_levels() -> None:
    nested = '"deep"'
    for _ in range(30):
        nested = f'[{{"type":"tool_result","content":{nested}}}]'

    assert DIALECTS["messages"].read(DIALECTS["messages"].body(text=nested)).prompt.size_bytes > len("deep")


# compression


@EVERYWHERE
def test_a_compressed_body_is_read_up_to_the_limit_it_decompresses_to(name: str) -> None:
    target, plain = DIALECTS[name].target, DIALECTS[name].body(text='"' + "a" * 10_000 + '"')
    headers, packed = Headers([("content-encoding", "gzip")]), gzip.compress(plain)

    assert plain_body(target, headers, packed, len(plain)) == plain
    for body, limit, encoding, status in (
        (packed, len(plain) - 1, "gzip", 413),
        (packed[:-9], len(plain), "gzip", 400),
        (plain, len(plain), "gzip", 400),
        (packed, len(plain), "br", 415),
        (packed, len(plain), "zstd", 415),
        (packed, len(plain), "gzip, gzip", 415),
    ):
        with pytest.raises(RequestError) as raised:
            plain_body(target, Headers([("content-encoding", encoding)]), body, limit)
        assert raised.value.status == status


# binary tensors and gRPC


def binary(text: bytes, limit: bytes, datatype: str = "INT32") -> tuple[bytes, Headers]:
    described = (("text_input", "BYTES", text), ("max_tokens", datatype, limit))
    tensors = [
        {"name": name, "datatype": kind, "shape": [1], "parameters": {"binary_data_size": len(data)}}
        for name, kind, data in described
    ]
    head = json.dumps({"inputs": tensors}).encode()
    return head + text + limit, Headers([("inference-header-content-length", str(len(head)))])


def message(text: bytes, limit: bytes, datatype: str = "INT32") -> bytes:
    request = triton.ModelInferRequest(model_name="m", raw_input_contents=[text, limit])
    request.inputs.add(name="text_input", datatype="BYTES", shape=[1])
    request.inputs.add(name="max_tokens", datatype=datatype, shape=[1])
    return request.SerializeToString()


GRPC = Dialect("/inference.GRPCInferenceService/ModelInfer", "")
STREAM = Dialect("/inference.GRPCInferenceService/ModelStreamInfer", "")
HELLO, FIVE = b"\5\0\0\0Hello", struct.pack("<i", 5)
ODD_TENSORS: dict[str, tuple[tuple[Any, ...], object]] = {
    "nothing odd": ((HELLO, FIVE), (5, 5)),
    "an empty text": ((b"\0\0\0\0", FIVE), (0, 5)),
    "no text": ((b"", FIVE), (0, 5)),
    "a text that is no utf-8": ((b"\2\0\0\0\xff\xfe", FIVE), (6, 5)),
    "a text cut short": ((b"\5\0\0\0Hell", FIVE), REFUSED),
    "a length cut short": ((b"\5\0\0", FIVE), REFUSED),
    "a length beyond all": ((b"\xff\xff\xff\xff", FIVE), REFUSED),
    "more texts than any batch": ((bytes(4 * 4097), FIVE), REFUSED),
    "the largest limit": ((HELLO, struct.pack("<i", MAX_OUTPUT_TOKENS)), (5, MAX_OUTPUT_TOKENS)),
    "a limit of 0": ((HELLO, bytes(4)), REFUSED),
    "a negative limit": ((HELLO, struct.pack("<i", -1)), REFUSED),
    "a huge limit": ((HELLO, struct.pack("<q", 2**31), "INT64"), REFUSED),
    "the hugest limit": ((HELLO, struct.pack("<Q", 2**64 - 1), "UINT64"), REFUSED),
    "a fraction": ((HELLO, struct.pack("<f", 5.0), "FP32"), REFUSED),
    "no number": ((HELLO, struct.pack("<f", float("nan")), "FP32"), REFUSED),
    "no limit": ((HELLO, b""), REFUSED),
    "two limits": ((HELLO, FIVE * 2), REFUSED),
    "a limit that is text": ((HELLO, b"\1\0\0\x005", "BYTES"), REFUSED),
    "a limit of no type": ((HELLO, FIVE, ""), REFUSED),
}


@pytest.mark.parametrize("odd", ODD_TENSORS)
def test_binary_tensors_over_http_and_grpc_have_the_same_answers(odd: str) -> None:
    tensors, expected = ODD_TENSORS[odd]
    ways = [lambda: DIALECTS["infer"].read(*binary(*tensors))]
    ways += [lambda dialect=dialect: dialect.read(message(*tensors)) for dialect in (GRPC, STREAM)]

    for read in ways:
        if expected == REFUSED:
            with pytest.raises(RequestError) as raised:
                read()
            assert (raised.value.status, raised.value.param) in ((400, "max_tokens"), (400, "text_input"))
        else:
            request = read()
            assert (request.prompt.size_bytes, request.max_output_tokens) == expected


def deep_group(levels: int) -> bytes:
    """An unknown field 100 of groups within groups, inside a tensor."""
    groups = b"\xa3\x06" * levels + b"\xa4\x06" * levels
    return b"\x2a" + bytes([len(groups) & 0x7F | 0x80, len(groups) >> 7]) + groups


@pytest.mark.parametrize(
    "body",
    [
        b"\xff",
        b"\x0a",
        b"\x0a\x05abc",
        b"\x0a\x02\xff\xfe",
        b'{"model_name":"m"}',
        b"\x2a\0" * 5000,
        b"\xa3\x06\xa4\x06",
        deep_group(1000),
    ],
    ids=["a tag cut", "a length missing", "a name cut", "no utf-8", "JSON", "5000 tensors", "a group", "deep groups"],
)
def test_what_is_no_message_of_kserves_is_refused(body: bytes) -> None:
    for dialect in (GRPC, STREAM):
        with pytest.raises(RequestError) as raised:
            dialect.read(body)
        assert raised.value.status == 400


def test_of_a_repeated_field_the_last_counts_over_grpc_but_a_tensor_stands_once() -> None:
    body = message(HELLO, FIVE)

    assert GRPC.read(body + b"\x0a\x05other").model == "other"
    with pytest.raises(RequestError):
        GRPC.read(body + triton.ModelInferRequest(inputs=[{"name": "max_tokens"}]).SerializeToString())


def test_an_empty_message_names_no_model() -> None:
    assert GRPC.read(b"").model == ""
