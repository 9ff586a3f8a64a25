"""What changes on the way to a cluster, and that nothing else does."""

from __future__ import annotations

import json
import struct
from dataclasses import replace
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import structs

from extproc.headers import Headers
from extproc.inspection import inspect
from extproc.inspection.request import InferenceRequest, RequestError
from extproc.inspection.target import Operation, Target
from extproc.rewrite import Rewrite, rewrite
from extproc.routing import Destination
from headgate.policy.model import Backend, Cluster, Frontend, Protocol

CHAT = Target(Protocol.OPENAI, Operation.CHAT)
COMPLETION = Target(Protocol.OPENAI, Operation.COMPLETION)
GENERATE = Target(Protocol.TRITON, Operation.GENERATE, "assistant", "/generate")
RESPONSES = Target(Protocol.OPENAI, Operation.RESPONSES)
EMBEDDINGS = Target(Protocol.OPENAI, Operation.EMBEDDINGS)
MESSAGES = Target(Protocol.ANTHROPIC, Operation.MESSAGES)
INFER = Target(Protocol.TRITON, Operation.INFER, "assistant", "/versions/1/infer")
LENGTH = "inference-header-content-length"
UNTOUCHED = Rewrite(path=None, body=None)


def bound_for(target: Target, max_output_tokens: int | None, model: str = "assistant") -> Destination:
    assert target.protocol is not None
    frontend = Frontend(protocol=target.protocol, model=model, endpoints=("h:1",), envoy_cluster="best")
    return Destination(
        cluster=Cluster(name="best", frontends={target.protocol: frontend}),
        frontend=frontend,
        max_output_tokens=max_output_tokens,
        charged_tokens=0,
        prompt_tokens=100,
        is_degraded=False,
        reason="",
    )


def edit(
    target: Target, body: bytes, max_output_tokens: int | None, model: str = "assistant", length: str | None = None
) -> Rewrite:
    headers = Headers([(LENGTH, length)] if length is not None else ())
    request = inspect(target, headers, body)
    return rewrite(target, headers, request, bound_for(target, max_output_tokens, model), body)


# OpenAI


@pytest.mark.parametrize(
    ("body", "limit", "model", "edited"),
    [
        (b'{"model":"assistant","prompt":"a"}', None, "assistant", None),
        (b'{"model":"assistant","prompt":"a","max_tokens":5}', 5, "assistant", None),
        (b'{ "prompt":"a", "model":"assistant"}', None, "llama", b'{"prompt":"a","model":"llama"}'),
        (b'{"model":"assistant","prompt":"a"}', 9, "assistant", b'{"model":"assistant","prompt":"a","max_tokens":9}'),
        (
            b'{"model":"assistant","max_tokens":50,"prompt":"a"}',
            9,
            "llama",
            b'{"model":"llama","max_tokens":9,"prompt":"a"}',
        ),
        (
            b'{"model":"assistant","max_completion_tokens":50,"prompt":"a"}',
            9,
            "assistant",
            b'{"model":"assistant","max_completion_tokens":9,"prompt":"a"}',
        ),
        (
            b'{"model":"assistant","max_tokens":null,"prompt":"a"}',
            9,
            "assistant",
            b'{"model":"assistant","max_tokens":9,"prompt":"a"}',
        ),
        (
            b'{"model":"assistant","max_completion_tokens":9,"max_tokens":100000,"prompt":"a"}',
            9,
            "assistant",
            b'{"model":"assistant","max_completion_tokens":9,"max_tokens":9,"prompt":"a"}',
        ),
        (b'{"model":"assistant","max_completion_tokens":9,"max_tokens":9,"prompt":"a"}', 9, "assistant", None),
        (
            b'{"model":"assistant","prompt":"a","max_tokens":100000,"max_tokens":50}',
            9,
            "assistant",
            b'{"model":"assistant","prompt":"a","max_tokens":9}',
        ),
        (b'{"model":"assistant","prompt":"a"}', None, 'a"b\\', b'{"model":"a\\"b\\\\","prompt":"a"}'),
    ],
    ids=[
        "nothing to change",
        "the limit asked for",
        "another model",
        "a limit where none was",
        "a lower limit and another model",
        "the field the client used",
        "a null limit",
        "two limits that differ",
        "two limits that agree",
        "a repeated limit",
        "a name with quotes",
    ],
)
def test_an_openai_body_changes_in_its_model_and_its_limit(
    body: bytes, limit: int | None, model: str, edited: bytes | None
) -> None:
    assert edit(COMPLETION, body, limit, model) == Rewrite(path=None, body=edited)


def test_of_a_long_body_even_the_white_space_stays() -> None:
    text = b"a" * 16 * 1024

    edited = edit(COMPLETION, b'{ "prompt": "%b", "model" : "assistant" }' % text, None, "llama")

    assert edited.body == b'{ "prompt": "%b", "model" : "llama" }' % text


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
LIMITS = st.none() | st.integers(1, 5000)
OPENAI_BODIES = st.builds(
    lambda others, known: others | known,
    st.dictionaries(st.text(max_size=6).map("x-{}".format), ANYTHING, max_size=4),
    st.fixed_dictionaries(
        {"model": st.just("assistant"), "messages": st.just([{"content": "hi"}]), "prompt": st.just("hi")},
        optional={
            "max_tokens": LIMITS,
            "max_completion_tokens": LIMITS,
            "n": st.integers(1, 3),
            "stream": st.booleans(),
            "tools": st.lists(ANYTHING, max_size=2),
        },
    ),
)


@settings(deadline=None)
@given(
    target=st.sampled_from([CHAT, COMPLETION]),
    body=OPENAI_BODIES,
    limit=LIMITS,
    model=st.sampled_from(["assistant", "meta/llama-3"]),
    indent=st.none() | st.integers(0, 2),
)
def test_an_edited_openai_body_reads_back_as_the_change_and_nothing_else(
    target: Target, body: dict[str, Any], limit: int | None, model: str, indent: int | None
) -> None:
    raw = json.dumps(body, indent=indent, ensure_ascii=bool(indent)).encode()
    before = inspect(target, Headers(()), raw)
    cap = limit if before.max_output_tokens is None else min(limit or 9999, before.max_output_tokens)

    changed = edit(target, raw, cap, model)

    if changed.body is None:
        assert model == before.model
        assert cap in (None, before.max_output_tokens)
        return
    after = inspect(target, Headers(()), changed.body)
    changed_fields = ("model", "max_output_tokens", "output_limit_fields", "are_output_limits_equal", "edited")
    assert _but(after, *changed_fields) == _but(before, *changed_fields)
    assert (after.model, after.max_output_tokens, after.are_output_limits_equal) == (model, cap, True)
    edited = {"model", "max_tokens", "max_completion_tokens"}
    assert _raw_values(changed.body, edited) == _raw_values(raw, edited)


def _but(request: InferenceRequest, *names: str) -> dict[str, object]:
    return {name: getattr(request, name) for name in InferenceRequest.__slots__ if name not in names}


def _raw_values(body: bytes, without: set[str]) -> dict[str, bytes]:
    fields = msgspec.json.decode(body, type=dict[str, msgspec.Raw])
    return {name: bytes(value) for name, value in fields.items() if name not in without}


# what the cluster is, and what the route sets

STREAM = b'{"model":"assistant","messages":[{"content":"a"}],"stream":true%b}'


def fitted(
    target: Target,
    body: bytes,
    *,
    priority: int = 0,
    overrides: dict[str, Any] | None = None,
    limit: int | None = None,
    **cluster: Any,
) -> dict[str, Any] | None:
    """The body as a cluster with these settings gets it; None when it gets the client's own."""
    request = inspect(target, Headers(()), body)
    place = bound_for(target, limit if limit is not None else request.max_output_tokens)
    place = structs.replace(
        place, cluster=replace(place.cluster, **cluster), priority=priority, overrides=overrides or {}
    )
    edited = rewrite(target, Headers(()), request, place, body).body
    return None if edited is None else json.loads(edited)


CHAT_BODY = {"model": "assistant", "messages": [{"content": "a"}]}
BODIES = {
    CHAT: CHAT_BODY,
    COMPLETION: {"model": "assistant", "prompt": "a"},
    RESPONSES: {"model": "assistant", "input": "a"},
    EMBEDDINGS: {"model": "assistant", "input": "a"},
    MESSAGES: {"model": "assistant", "messages": [{"content": "a"}], "max_tokens": 5},
    GENERATE: {"text_input": "a"},
}


@pytest.mark.parametrize(
    ("target", "name"),
    [(CHAT, "max_tokens"), (COMPLETION, "max_tokens"), (RESPONSES, "max_output_tokens"), (GENERATE, "max_tokens")],
)
def test_a_limit_is_set_under_the_name_the_dialect_has(target: Target, name: str) -> None:
    assert fitted(target, json.dumps(BODIES[target]).encode(), limit=9) == BODIES[target] | {name: 9}


@pytest.mark.parametrize("target", [CHAT, COMPLETION, RESPONSES, EMBEDDINGS, MESSAGES])
def test_every_body_gets_its_models_name_and_no_other_byte_changes(target: Target) -> None:
    body = json.dumps(BODIES[target], indent=1).encode()
    asked = inspect(target, Headers(()), body).max_output_tokens

    edited = rewrite(target, Headers(()), inspect(target, Headers(()), body), bound_for(target, asked, "llama"), body)

    assert edited.body is not None
    assert json.loads(edited.body) == BODIES[target] | {"model": "llama"}


@pytest.mark.parametrize(
    ("backend", "target", "priority", "sent"),
    [
        (Backend.VLLM, CHAT, 3, 3),
        (Backend.VLLM, RESPONSES, 0, 0),
        (Backend.VLLM, EMBEDDINGS, 1, 1),
        (Backend.VLLM, MESSAGES, 3, None),
        (Backend.TRTLLM, CHAT, 0, 1.0),
        (Backend.TRTLLM, COMPLETION, 4, 0.2),
        (Backend.TRTLLM, RESPONSES, 4, None),
        (Backend.TRITON, GENERATE, 4, None),
        (None, CHAT, 4, None),
    ],
)
def test_priority_points_the_way_the_backend_reads_it_and_only_where_it_has_one(
    backend: Backend | None, target: Target, priority: int, sent: float | None
) -> None:
    body = json.dumps(BODIES[target] | {"priority": 77 if target is CHAT and backend else None}).encode()

    edited = fitted(target, body, backend=backend, sends_priority=True, priority=priority)

    assert (None if edited is None else edited["priority"]) == sent
    assert fitted(target, body, backend=backend, priority=priority) is None


@pytest.mark.parametrize(
    ("options", "sent"),
    [
        (b"", {"include_usage": True}),
        (b',"stream_options":null', {"include_usage": True}),
        (b',"stream_options":{}', {"include_usage": True}),
        (
            b',"stream_options":{"continuous_usage_stats":false,"include_usage":false}',
            {"continuous_usage_stats": False, "include_usage": True},
        ),
    ],
)
def test_a_stream_is_asked_for_its_usage_where_accounting_wants_it(options: bytes, sent: object) -> None:
    edited = fitted(CHAT, STREAM % options, asks_for_usage=True)

    assert edited is not None
    assert edited["stream_options"] == sent
    assert fitted(CHAT, STREAM % options) is None


@pytest.mark.parametrize(
    ("target", "body"),
    [
        (CHAT, STREAM % b',"stream_options":{"include_usage":true}'),
        (CHAT, json.dumps(CHAT_BODY).encode()),
        (RESPONSES, b'{"model":"assistant","input":"a","stream":true}'),
        (MESSAGES, b'{"model":"assistant","messages":[{"content":"a"}],"max_tokens":5,"stream":true}'),
    ],
)
def test_nothing_is_asked_of_what_tells_its_usage_anyway(target: Target, body: bytes) -> None:
    assert fitted(target, body, asks_for_usage=True) is None


def test_tritons_ensemble_is_asked_for_its_counts() -> None:
    assert fitted(GENERATE, b'{"text_input":"a"}', asks_for_usage=True) == {
        "text_input": "a",
        "return_num_input_tokens": True,
        "return_num_output_tokens": True,
    }


OVERRIDES = {"temperature": 0.0, "top_k": 1, "min_p": 0.1, "stop": ("x",), "reasoning_effort": "low"}


@pytest.mark.parametrize(
    ("target", "names"),
    [
        (CHAT, set(OVERRIDES)),
        (COMPLETION, {"temperature", "top_k", "min_p", "stop"}),
        (RESPONSES, {"temperature"}),
        (MESSAGES, {"temperature", "top_k"}),
        (GENERATE, {"temperature", "top_k"}),
    ],
)
def test_a_routes_overrides_replace_what_the_client_chose_where_the_dialect_has_the_field(
    target: Target, names: set[str]
) -> None:
    body = {"temperature": 1.5, **BODIES[target]}
    wanted = {name: list(value) if isinstance(value, tuple) else value for name, value in OVERRIDES.items()}

    edited = fitted(target, json.dumps(body).encode(), overrides=OVERRIDES)

    assert edited == body | {name: wanted[name] for name in names}


def test_an_llmapi_models_overrides_have_its_own_names() -> None:
    body = {"text_input": "a", "sampling_param_max_tokens": 5}

    edited = fitted(GENERATE, json.dumps(body).encode(), overrides=OVERRIDES, asks_for_usage=True)

    assert edited == body | {"sampling_param_temperature": 0.0, "sampling_param_top_k": 1}


def test_embeddings_have_nothing_to_override() -> None:
    assert fitted(EMBEDDINGS, b'{"model":"assistant","input":"a"}', overrides=OVERRIDES) is None


@pytest.mark.parametrize(
    ("target", "extra", "kept"),
    [
        (CHAT, {"max_tokens": 9, "max_completion_tokens": 7}, {"max_tokens": 7}),
        (CHAT, {"max_tokens": 9, "max_completion_tokens": None}, {"max_tokens": 9}),
        (CHAT, {"max_tokens": None, "max_completion_tokens": None}, {}),
        (CHAT, {"max_completion_tokens": 7}, None),
        (COMPLETION, {"max_completion_tokens": 7}, {"max_tokens": 7}),
        (CHAT, {"stream_options": {"include_usage": True}}, {}),
        (CHAT, {"stream_options": None, "stream": False}, {"stream": False}),
        (CHAT, {"service_tier": "flex"}, {}),
        (RESPONSES, {"service_tier": "flex"}, None),
    ],
)
def test_trtllm_serve_never_sees_what_it_answers_with_a_400(
    target: Target, extra: dict[str, object], kept: dict[str, object] | None
) -> None:
    body = BODIES[target] | extra

    edited = fitted(target, json.dumps(body).encode(), backend=Backend.TRTLLM)

    assert edited == (None if kept is None else BODIES[target] | kept)
    assert fitted(target, json.dumps(body).encode(), backend=Backend.VLLM) in (None, edited, body | {"max_tokens": 7})


def test_a_new_limit_is_not_lost_with_the_name_that_goes() -> None:
    body = BODIES[CHAT] | {"max_tokens": None, "max_completion_tokens": None}

    assert fitted(CHAT, json.dumps(body).encode(), backend=Backend.TRTLLM, limit=9) == CHAT_BODY | {"max_tokens": 9}


# Triton


@pytest.mark.parametrize(
    ("body", "limit", "edited"),
    [
        (b'{"text_input":"a","max_tokens":5}', 5, None),
        (b'{"text_input":"a","max_tokens":50}', 5, b'{"text_input":"a","max_tokens":5}'),
        (b'{"text_input":"a","max_tokens":[50]}', 5, b'{"text_input":"a","max_tokens":5}'),
        (b'{"text_input":"a"}', 5, b'{"text_input":"a","max_tokens":5}'),
        (b'{"text_input":"a"}', None, None),
        (
            b'{"text_input":"a","sampling_param_max_tokens":50}',
            5,
            b'{"text_input":"a","sampling_param_max_tokens":5}',
        ),
        (b'{"image":"a"}', 5, None),
    ],
    ids=["as asked", "lower", "a list", "none asked", "no cap", "llmapi", "no language model"],
)
def test_a_generate_body_changes_in_its_limit(body: bytes, limit: int | None, edited: bytes | None) -> None:
    assert edit(GENERATE, body, limit) == Rewrite(path=None, body=edited)


def test_a_triton_model_is_renamed_in_the_path_and_its_body_left_alone() -> None:
    assert edit(GENERATE, b'{ "text_input" : "a" }', None, "ensemble") == Rewrite(
        path="/v2/models/ensemble/generate", body=None
    )
    assert edit(INFER, b'{"inputs":[]}', 7, "a/b").path == "/v2/models/a%2Fb/versions/1/infer"


def infer_body(*tensors: dict[str, Any], binary: bytes = b"") -> tuple[bytes, str]:
    head = json.dumps({"id": "7", "inputs": tensors, "outputs": [{"name": "text_output"}]}).encode()
    return head + binary, str(len(head))


def test_a_limit_in_json_is_set_and_the_json_keeps_its_length() -> None:
    limit = {"name": "max_tokens", "shape": [1, 1], "datatype": "INT32", "data": [[50000]]}
    text = {"name": "text_input", "shape": [1, 1], "datatype": "BYTES", "parameters": {"binary_data_size": 5}}
    body, length = infer_body(limit, text, binary=b"\1\0\0\0a")

    edited = edit(INFER, body, 5, length=length)

    assert edited.body is not None
    assert edited.json_bytes is None
    assert len(edited.body) == len(body)
    assert edited.body[int(length) :] == b"\1\0\0\0a"
    assert json.loads(edited.body[: int(length)]) == {
        "id": "7",
        "inputs": [{**limit, "data": [5]}, text],
        "outputs": [{"name": "text_output"}],
    }


@pytest.mark.parametrize(("datatype", "code"), [("INT32", "<i"), ("UINT32", "<I"), ("INT64", "<q"), ("UINT64", "<Q")])
def test_a_binary_limit_is_set_in_its_place_and_the_json_is_left_alone(datatype: str, code: str) -> None:
    def described(name: str, kind: str, size: int) -> dict[str, Any]:
        return {"name": name, "shape": [1], "datatype": kind, "parameters": {"binary_data_size": size}}

    width = struct.calcsize(code)
    tensors = [described("a", "INT8", 2), described("max_tokens", datatype, width), described("z", "INT8", 1)]
    body, length = infer_body(*tensors, binary=b"\7\7" + struct.pack(code, 70_000) + b"\6")

    edited = edit(INFER, body, 300, length=length)

    assert edited == Rewrite(path=None, body=body[: int(length)] + b"\7\7" + struct.pack(code, 300) + b"\6")


def test_an_infer_body_without_a_limit_tensor_goes_through_byte_for_byte() -> None:
    body, length = infer_body({"name": "text_input", "datatype": "BYTES", "shape": [1], "data": ["a"]})

    assert edit(INFER, body, 5, length=length) == UNTOUCHED


def test_a_limit_under_two_names_is_set_in_both() -> None:
    named = [
        {"name": name, "datatype": "INT32", "shape": [1], "data": [50]} for name in ("max_tokens", "request_output_len")
    ]
    body, _ = infer_body(*named)

    edited = edit(INFER, body, 5).body

    assert edited is not None
    assert [tensor["data"] for tensor in json.loads(edited)["inputs"]] == [[5], [5]]


def test_an_openai_key_that_is_not_utf_8_is_a_request_error_only_where_the_body_has_to_change() -> None:
    body = b'{"x":[[]],"model":"assistant","prompt":"a","max_tokens":50,"\xff":[[]]}'

    assert edit(COMPLETION, body, 50) == UNTOUCHED
    with pytest.raises(RequestError):
        edit(COMPLETION, body, 5)
