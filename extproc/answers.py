"""Questions about the policy itself, answered from it: which models there are, whether the API is up."""

from __future__ import annotations

import msgspec

from extproc.inspection.content import wire_body
from extproc.inspection.kserve_grpc import rename_question
from extproc.inspection.target import Operation, Target
from headgate.policy.model import Frontend, Policy, Protocol

SIDECAR_CLUSTER = "headgate_extproc"
"""Envoy's name for this sidecar, which answers gRPC's questions about the gateway itself."""


def metadata(policy: Policy, target: Target) -> bytes | None:
    """The body for a metadata path of the gateway; None where a model server has to answer."""
    if target.protocol is Protocol.OPENAI:
        if target.model is not None:
            return msgspec.json.encode(_openai_model(target.model))
        return msgspec.json.encode({"object": "list", "data": [_openai_model(name) for name in policy.models]})
    if target.model is not None or target.protocol is Protocol.KSERVE_GRPC:
        return None
    if target.protocol is None or target.rest.startswith("/v2/health/"):
        return b""
    extensions = ["generate", "binary_tensor_data"]
    return msgspec.json.encode({"name": "headgate", "version": policy.version, "extensions": extensions})


class Question(msgspec.Struct, frozen=True):
    """Headers and body of a question as it goes to who can answer it; no body: the client's own."""

    headers: dict[str, str]
    body: bytes | None = None


def question(policy: Policy, target: Target, message: bytes) -> Question:
    """How a request that runs no model goes on; without a header where Envoy has nowhere to send it.

    Args:
        message: of a gRPC question about a model, what it says.
    """
    frontend = metadata_frontend(policy, target)
    if frontend is None:
        is_ours = target.protocol is Protocol.KSERVE_GRPC and target.operation is Operation.METADATA
        return Question({"x-model-cluster": SIDECAR_CLUSTER} if is_ours and target.model is None else {})
    headers = {"x-model-cluster": frontend.envoy_cluster}
    if target.protocol is Protocol.TRITON:
        return Question(headers | {":path": target.path_for(frontend.model)})
    body = wire_body(target, rename_question(message, frontend.model))
    return Question(headers | {"content-length": str(len(body))}, body)


def metadata_frontend(policy: Policy, target: Target) -> Frontend | None:
    """Where Triton's own questions about a model go: the first cluster that serves it over the API they came in."""
    model, protocol = policy.models.get(target.model or ""), target.protocol
    if model is None or protocol not in (Protocol.TRITON, Protocol.KSERVE_GRPC):
        return None
    clusters = (policy.clusters[route.cluster] for route in model.routes)
    return next((c.frontends[protocol] for c in clusters if protocol in c.frontends), None)


def _openai_model(name: str) -> dict[str, object]:
    return {"id": name, "object": "model", "created": 0, "owned_by": "headgate"}
