"""Questions about the policy itself, answered from it: which models there are, whether the API is up."""

from __future__ import annotations

import msgspec

from extproc.inspection.target import Target
from headgate.policy.model import Frontend, Policy, Protocol


def metadata(policy: Policy, target: Target) -> bytes | None:
    """The body for a metadata path of the gateway; None where a model server has to answer."""
    if target.protocol is Protocol.OPENAI:
        if target.model is not None:
            return msgspec.json.encode(_openai_model(target.model))
        return msgspec.json.encode({"object": "list", "data": [_openai_model(name) for name in policy.models]})
    if target.model is not None:
        return None
    if target.protocol is None or target.rest.startswith("/v2/health/"):
        return b""
    extensions = ["generate", "binary_tensor_data"]
    return msgspec.json.encode({"name": "headgate", "version": policy.version, "extensions": extensions})


def metadata_frontend(policy: Policy, target: Target) -> Frontend | None:
    """Where Triton's own questions about a model go: the first cluster that serves it over Triton's API."""
    model = policy.models.get(target.model or "")
    if model is None or target.protocol is not Protocol.TRITON:
        return None
    clusters = (policy.clusters[route.cluster] for route in model.routes)
    return next((c.frontends[Protocol.TRITON] for c in clusters if Protocol.TRITON in c.frontends), None)


def _openai_model(name: str) -> dict[str, object]:
    return {"id": name, "object": "model", "created": 0, "owned_by": "headgate"}
