"""What a path asks for, before any body is read."""

from __future__ import annotations

import re
from enum import StrEnum
from urllib.parse import quote, unquote

import msgspec

from headgate.policy.model import Protocol


class Operation(StrEnum):
    """What the client wants done; the words of OpenTelemetry's `gen_ai.operation.name` where it has one."""

    CHAT = "chat"
    COMPLETION = "text_completion"
    EMBEDDINGS = "embeddings"
    RESPONSES = "responses"
    MESSAGES = "messages"
    COUNT_TOKENS = "count_tokens"
    GENERATE = "generate"
    GENERATE_STREAM = "generate_stream"
    INFER = "infer"
    STREAM_INFER = "stream_infer"
    METADATA = "metadata"
    OTHER = "other"


class Target(msgspec.Struct, frozen=True, gc=False):
    """A method and path as parsed.

    Attributes:
        protocol: None where the path belongs to none of the APIs.
        model: the model the path names; None where the body does, or nothing.
        rest: what follows the model's name in a Triton path, query included.
    """

    protocol: Protocol | None
    operation: Operation
    model: str | None = None
    rest: str = ""

    @property
    def is_inference(self) -> bool:
        """Whether the request runs a model, and so needs a cluster."""
        return self.operation not in _RUNS_NO_MODEL

    @property
    def is_model_question(self) -> bool:
        """Whether the body names the model that is asked about, without running it."""
        return self.rest in _KSERVE_MODEL_QUESTIONS and self.operation is Operation.METADATA

    def path_for(self, model: str) -> str:
        """The same Triton path for the model's name on its cluster."""
        return f"/v2/models/{quote(model, safe='')}{self.rest}"


_RUNS_NO_MODEL = frozenset({Operation.METADATA, Operation.OTHER})
_INFERENCE = {
    "/v1/chat/completions": Target(Protocol.OPENAI, Operation.CHAT),
    "/v1/completions": Target(Protocol.OPENAI, Operation.COMPLETION),
    "/v1/embeddings": Target(Protocol.OPENAI, Operation.EMBEDDINGS),
    "/v1/responses": Target(Protocol.OPENAI, Operation.RESPONSES),
    "/v1/messages": Target(Protocol.ANTHROPIC, Operation.MESSAGES),
    "/v1/messages/count_tokens": Target(Protocol.ANTHROPIC, Operation.COUNT_TOKENS),
}
_ANTHROPIC = "/v1/messages"
_OPENAI_MODELS = re.compile(r"/v1/models(?:/(.+))?")
_TRITON_MODEL = re.compile(r"/v2/models/([^/?]+)((?:/versions/[^/?]+)?(?:/([a-z_]+))?)/?")
_TRITON_RUNS = {
    "generate": Operation.GENERATE,
    "generate_stream": Operation.GENERATE_STREAM,
    "infer": Operation.INFER,
}
STREAM_INFER_PATH = "/inference.GRPCInferenceService/ModelStreamInfer"
_KSERVE_RUNS = {
    "/inference.GRPCInferenceService/ModelInfer": Operation.INFER,
    STREAM_INFER_PATH: Operation.STREAM_INFER,
}
_KSERVE_MODEL_QUESTIONS = frozenset(
    f"/inference.GRPCInferenceService/{method}"
    for method in ("ModelReady", "ModelMetadata", "ModelConfig", "ModelStatistics")
)
_KSERVE_QUESTIONS = _KSERVE_MODEL_QUESTIONS | {
    *(f"/inference.GRPCInferenceService/Server{what}" for what in ("Live", "Ready", "Metadata")),
    "/inference.GRPCInferenceService/RepositoryIndex",
    "/grpc.health.v1.Health/Check",
    "/grpc.health.v1.Health/Watch",
}
_TRITON_METADATA = re.compile(r"/v2(?:/health/(?:live|ready))?")
_HEALTH = re.compile(r"/(?:v1/)?health(?:/(?:live|ready))?|/ping")
"""What vLLM, trtllm-serve and NIM are asked."""


def parse_target(method: str, path: str) -> Target:
    """Read `:method` and `:path`; never fails, what is not known is `OTHER`."""
    plain, mark, query = path.partition("?")
    if method == "POST" and (usual := _INFERENCE.get(plain)) is not None:
        return usual
    if plain.startswith(("/inference.", "/grpc.")):
        return _kserve_target(method, plain)
    if match := _TRITON_MODEL.fullmatch(plain):
        return _triton_target(method, match, mark + query)
    if method in ("GET", "HEAD"):
        if match := _OPENAI_MODELS.fullmatch(plain):
            return Target(Protocol.OPENAI, Operation.METADATA, unquote(match[1]) if match[1] else None, plain)
        if _HEALTH.fullmatch(plain):
            return Target(None, Operation.METADATA, None, plain)
        if _TRITON_METADATA.fullmatch(plain):
            return Target(Protocol.TRITON, Operation.METADATA, None, plain)
    if plain == _ANTHROPIC or plain.startswith(f"{_ANTHROPIC}/"):
        return Target(Protocol.ANTHROPIC, Operation.OTHER)
    protocol = {"/v1/": Protocol.OPENAI, "/v2/": Protocol.TRITON}.get(plain[:4])
    return Target(protocol, Operation.OTHER)


def _kserve_target(method: str, path: str) -> Target:
    if method == "POST" and path in _KSERVE_RUNS:
        return Target(Protocol.KSERVE_GRPC, _KSERVE_RUNS[path], rest=path)
    is_question = method == "POST" and path in _KSERVE_QUESTIONS
    return Target(Protocol.KSERVE_GRPC, Operation.METADATA if is_question else Operation.OTHER, rest=path)


def _triton_target(method: str, match: re.Match[str], query: str) -> Target:
    model, rest, verb = unquote(match[1]), match[2] + query, match[3]
    if method == "POST" and verb in _TRITON_RUNS:
        return Target(Protocol.TRITON, _TRITON_RUNS[verb], model, rest)
    is_read = method in ("GET", "HEAD") and verb in (None, "ready", "config", "stats")
    return Target(Protocol.TRITON, Operation.METADATA if is_read else Operation.OTHER, model, rest)
