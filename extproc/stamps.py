"""What a decided request carries on: headers for rate limits and model servers, metadata for filters and logs."""

from __future__ import annotations

from extproc.affinity import AFFINITY_HEADER
from extproc.events import Decision
from extproc.identity import Identity
from extproc.rewrite import Rewrite
from extproc.routing import Destination

_MAX_HITS = 10**9
"""Envoy leaves out a rate limit descriptor that counts more hits, and with it the limit."""


def stamp(identity: Identity, model: str) -> dict[str, str]:
    """The headers by which rate limits and model servers know the request's owner."""
    stamp = {"x-headgate-tenant": identity.tenant.name, "x-headgate-tier": identity.tier.name}
    return stamp | {"x-headgate-model": model} if model else stamp


def routed(destination: Destination, changed: Rewrite, group: str) -> dict[str, str]:
    """The headers by which Envoy finds the cluster, and those that follow from the edit.

    Args:
        group: the name of the requests this one ought to meet again; "" for none.
    """
    headers = {"x-model-cluster": destination.frontend.envoy_cluster}
    if group:
        headers[AFFINITY_HEADER] = group
    if changed.path is not None:
        headers[":path"] = changed.path
    if changed.body is not None:
        headers["content-length"] = str(len(changed.body))
    return headers


def metadata(decision: Decision) -> dict[str, str | float]:
    """Dynamic metadata of namespace `headgate`: for rate limits, response headers and the access log."""
    text = decision.verdict.lower() + (f"; reason={decision.reason}" if decision.reason else "")
    if decision.queue_wait_seconds:
        text += f"; wait={decision.queue_wait_seconds * 1000:.0f}ms"
    return {
        "request_id": decision.request_id,
        "tenant": decision.tenant,
        "tier": decision.tier,
        "model": decision.model,
        "cluster": decision.cluster,
        "protocol": decision.protocol,
        "operation": decision.operation,
        "verdict": decision.verdict,
        "reason": decision.reason,
        "decision": text,
        "prompt_tokens": decision.prompt_tokens,
        "max_output_tokens": decision.max_output_tokens,
        "charged_tokens": min(decision.charged_tokens, _MAX_HITS),
        "queue_wait_seconds": decision.queue_wait_seconds,
        "uncorrected_prompt_tokens": decision.uncorrected_prompt_tokens,
    }
