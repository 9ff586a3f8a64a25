"""What a decided request carries on: headers for rate limits and model servers, and those Envoy routes by."""

from __future__ import annotations

from extproc.affinity import AFFINITY_HEADER
from extproc.identity import Identity
from extproc.inspection.triton import JSON_LENGTH_HEADER
from extproc.rewrite import Rewrite
from extproc.routing import Destination


def stamp(identity: Identity, model: str) -> dict[str, str]:
    """The headers by which rate limits and model servers know the request's owner."""
    headers = {"x-headgate-tenant": identity.tenant.name, "x-headgate-tier": identity.tier.name}
    if model:
        headers["x-headgate-model"] = model
    return headers


def stamp_route(headers: dict[str, str], destination: Destination, changed: Rewrite, group: str) -> None:
    """Add the headers by which Envoy finds the cluster, and those that follow from the edit.

    Args:
        group: the name of the requests this one ought to meet again; "" for none.
    """
    headers["x-model-cluster"] = destination.frontend.envoy_cluster
    if group:
        headers[AFFINITY_HEADER] = group
    if changed.path is not None:
        headers[":path"] = changed.path
    if changed.body is not None:
        headers["content-length"] = str(len(changed.body))
    if changed.json_bytes is not None:
        headers[JSON_LENGTH_HEADER] = str(changed.json_bytes)
