"""What a destination changes in a request for inference by tensors, over HTTP or gRPC.

Decides only what is to be; `inspection` knows which tensors that concerns and how they are written.
"""

from __future__ import annotations

from extproc.inspection.infer_changes import InferChanges
from extproc.inspection.request import InferenceRequest
from extproc.routing import Destination
from headgate.policy.model import Backend


def infer_changes(request: InferenceRequest, destination: Destination, limit: int | None) -> InferChanges:
    """The changes; `limit` is the new output limit, None where it stays the client's.

    A request without a prompt or an output limit is for a model that does not decode.
    """
    has_limit = bool(request.output_limit_fields)
    return InferChanges(
        limit=limit if has_limit else None,
        overrides=destination.overrides if has_limit or request.prompt.messages else {},
        priority=_priority(destination),
    )


def _priority(destination: Destination) -> int | None:
    """The tier's, in the levels of Triton's scheduler: 1 goes first, and the last level takes all beyond it."""
    cluster = destination.cluster
    if cluster.backend is not Backend.TRITON or not cluster.sends_priority or cluster.priority_levels is None:
        return None
    return min(destination.priority + 1, cluster.priority_levels)
