"""What a method and a path ask for."""

from __future__ import annotations

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from extproc.inspection.target import Operation, Target, parse_target
from headgate.policy.model import Protocol

OPENAI, TRITON = Protocol.OPENAI, Protocol.TRITON
ANY_TEXT = st.text(st.characters(exclude_categories=()))


@pytest.mark.parametrize(
    ("path", "operation"),
    [
        ("/v1/chat/completions", Operation.CHAT),
        ("/v1/chat/completions?api-version=1", Operation.CHAT),
        ("/v1/completions", Operation.COMPLETION),
        ("/v1/embeddings", Operation.EMBEDDINGS),
        ("/v1/responses", Operation.RESPONSES),
    ],
)
def test_openais_inference_paths_leave_the_model_to_the_body(path: str, operation: Operation) -> None:
    assert parse_target("POST", path) == Target(OPENAI, operation)


def test_messages_are_anthropics() -> None:
    assert parse_target("POST", "/v1/messages?beta=true") == Target(Protocol.ANTHROPIC, Operation.MESSAGES)


def test_anthropics_question_for_a_count_runs_no_model() -> None:
    target = parse_target("POST", "/v1/messages/count_tokens?beta=true")

    assert target == Target(Protocol.ANTHROPIC, Operation.COUNT_TOKENS)


@pytest.mark.parametrize("path", ["/health", "/health/live", "/health/ready", "/v1/health/ready", "/ping"])
def test_what_asks_for_health_is_metadata_of_no_api(path: str) -> None:
    assert parse_target("GET", path) == Target(None, Operation.METADATA, None, path)
    assert parse_target("POST", path).operation is Operation.OTHER


@pytest.mark.parametrize(
    ("path", "target"),
    [
        ("/v2/models/m/generate", Target(TRITON, Operation.GENERATE, "m", "/generate")),
        ("/v2/models/m/generate_stream", Target(TRITON, Operation.GENERATE_STREAM, "m", "/generate_stream")),
        ("/v2/models/m/infer", Target(TRITON, Operation.INFER, "m", "/infer")),
        ("/v2/models/m/infer/", Target(TRITON, Operation.INFER, "m", "/infer")),
        ("/v2/models/m/versions/3/infer", Target(TRITON, Operation.INFER, "m", "/versions/3/infer")),
        ("/v2/models/m/infer?trace=1&b", Target(TRITON, Operation.INFER, "m", "/infer?trace=1&b")),
        ("/v2/models/a%2Fb%20c/infer", Target(TRITON, Operation.INFER, "a/b c", "/infer")),
        ("/v2/models/%ff/infer", Target(TRITON, Operation.INFER, "\ufffd", "/infer")),
    ],
)
def test_tritons_inference_paths_name_the_model(path: str, target: Target) -> None:
    assert parse_target("POST", path) == target
    assert target.is_inference


SERVICE = "/inference.GRPCInferenceService"


@pytest.mark.parametrize(
    ("path", "operation", "is_model_question"),
    [
        (f"{SERVICE}/ModelInfer", Operation.INFER, False),
        (f"{SERVICE}/ModelStreamInfer", Operation.STREAM_INFER, False),
        (f"{SERVICE}/ServerLive", Operation.METADATA, False),
        (f"{SERVICE}/RepositoryIndex", Operation.METADATA, False),
        (f"{SERVICE}/ModelReady", Operation.METADATA, True),
        (f"{SERVICE}/ModelConfig", Operation.METADATA, True),
        ("/grpc.health.v1.Health/Check", Operation.METADATA, False),
        ("/grpc.health.v1.Health/Watch", Operation.METADATA, False),
        (f"{SERVICE}/RepositoryModelLoad", Operation.OTHER, False),
        (f"{SERVICE}/", Operation.OTHER, False),
        ("/inference.Other/ModelInfer", Operation.OTHER, False),
        ("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", Operation.OTHER, False),
    ],
)
def test_kserves_methods_are_paths(path: str, operation: Operation, is_model_question: bool) -> None:
    target = parse_target("POST", path)

    assert target == Target(Protocol.KSERVE_GRPC, operation, None, path)
    assert target.is_model_question is is_model_question
    assert parse_target("GET", path).operation is Operation.OTHER


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize(
    ("path", "target"),
    [
        ("/v1/models", Target(OPENAI, Operation.METADATA, None, "/v1/models")),
        ("/v1/models/meta/llama", Target(OPENAI, Operation.METADATA, "meta/llama", "/v1/models/meta/llama")),
        ("/v1/models/meta%2Fllama", Target(OPENAI, Operation.METADATA, "meta/llama", "/v1/models/meta%2Fllama")),
        ("/v2", Target(TRITON, Operation.METADATA, None, "/v2")),
        ("/v2/health/live", Target(TRITON, Operation.METADATA, None, "/v2/health/live")),
        ("/v2/health/ready", Target(TRITON, Operation.METADATA, None, "/v2/health/ready")),
        ("/v2/models/m", Target(TRITON, Operation.METADATA, "m", "")),
        ("/v2/models/m/ready", Target(TRITON, Operation.METADATA, "m", "/ready")),
        ("/v2/models/m/config", Target(TRITON, Operation.METADATA, "m", "/config")),
        ("/v2/models/m/versions/1/stats", Target(TRITON, Operation.METADATA, "m", "/versions/1/stats")),
    ],
)
def test_questions_about_models_are_metadata(method: str, path: str, target: Target) -> None:
    assert parse_target(method, path) == target
    assert not target.is_inference


@pytest.mark.parametrize(
    ("method", "path", "protocol", "model"),
    [
        ("GET", "/v1/chat/completions", OPENAI, None),
        ("post", "/v1/chat/completions", OPENAI, None),
        ("POST", "/v1/chat/completions/", OPENAI, None),
        ("POST", "/V1/chat/completions", None, None),
        ("POST", "//v1/chat/completions", None, None),
        ("POST", "/v1/chat/completions#x", OPENAI, None),
        ("POST", "/v1/images/generations", OPENAI, None),
        ("GET", "/v1/messages", Protocol.ANTHROPIC, None),
        ("GET", "/v1/messages/count_tokens", Protocol.ANTHROPIC, None),
        ("POST", "/v1/messages/batches", Protocol.ANTHROPIC, None),
        ("POST", "/v1/messages2", OPENAI, None),
        ("POST", "/v1/models", OPENAI, None),
        ("POST", "/v2/health/live", TRITON, None),
        ("POST", "/v2/repository/index", TRITON, None),
        ("POST", "/v2/repository/models/m/load", TRITON, None),
        ("GET", "/v2/models", TRITON, None),
        ("GET", "/v2/models/", TRITON, None),
        ("POST", "/v2/models//infer", TRITON, None),
        ("POST", "/v2/models/a/b/infer", TRITON, None),
        ("GET", "/v2/models/m/infer", TRITON, "m"),
        ("POST", "/v2/models/m/ready", TRITON, "m"),
        ("POST", "/v2/models/m/unload", TRITON, "m"),
        ("POST", "/v2/models/m/versions/1/2/infer", TRITON, None),
        ("POST", "*", None, None),
        ("", "", None, None),
        ("GET", "/metrics", None, None),
        ("GET", "/v1", None, None),
    ],
)
def test_everything_else_is_other_and_keeps_the_model_it_names(
    method: str, path: str, protocol: Protocol | None, model: str | None
) -> None:
    target = parse_target(method, path)

    assert (target.protocol, target.operation, target.model) == (protocol, Operation.OTHER, model)
    assert not target.is_inference


def test_a_path_is_rebuilt_for_the_models_name_on_its_cluster() -> None:
    target = parse_target("POST", "/v2/models/assistant/versions/2/generate?x=1")

    assert target.path_for("ensemble") == "/v2/models/ensemble/versions/2/generate?x=1"
    assert target.path_for("a/b c") == "/v2/models/a%2Fb%20c/versions/2/generate?x=1"


@settings(deadline=None)
@given(method=ANY_TEXT, path=ANY_TEXT)
@example(method="POST", path="/v2/models/%")
@example(method="POST", path="/v2/models/%ud800\ud800%d8/infer")
@example(method="GET", path="/v1/models/" + "%2f" * 5000)
def test_any_two_strings_are_a_target(method: str, path: str) -> None:
    assert isinstance(parse_target(method, path), Target)


@settings(deadline=None)
@given(
    model=st.text(min_size=1),
    verb=st.sampled_from(["generate", "generate_stream", "infer"]),
)
def test_a_rebuilt_path_names_the_very_model_it_was_built_for(model: str, verb: str) -> None:
    path = parse_target("POST", f"/v2/models/m/{verb}").path_for(model)

    assert path.isascii()
    assert parse_target("POST", path) == Target(TRITON, Operation(verb), model, f"/{verb}")
