"""How a request ended, and what it used where nobody said: plain functions over what Envoy logged."""

from __future__ import annotations

from collections.abc import Collection

from headgate.record import Outcome

BYTES_PER_TOKEN = 4
"""Of an answer in one piece; English text and the JSON around it."""

FLAG_NAMES = {
    "failed_local_healthcheck": "LH",
    "no_healthy_upstream": "UH",
    "upstream_request_timeout": "UT",
    "local_reset": "LR",
    "upstream_remote_reset": "UR",
    "upstream_connection_failure": "UF",
    "upstream_connection_termination": "UC",
    "upstream_overflow": "UO",
    "no_route_found": "NR",
    "delay_injected": "DI",
    "fault_injected": "FI",
    "rate_limited": "RL",
    "unauthorized_details": "UAEX",
    "rate_limit_service_error": "RLSE",
    "downstream_connection_termination": "DC",
    "upstream_retry_limit_exceeded": "URX",
    "stream_idle_timeout": "SI",
    "invalid_envoy_request_headers": "IH",
    "downstream_protocol_error": "DPE",
    "upstream_max_stream_duration_reached": "UMSDR",
    "response_from_cache_filter": "RFCF",
    "no_filter_config_found": "NFCF",
    "duration_timeout": "DT",
    "upstream_protocol_error": "UPE",
    "no_cluster_found": "NC",
    "overload_manager": "OM",
    "dns_resolution_failure": "DF",
    "downstream_remote_reset": "DR",
}
"""Envoy's response flags: name in its messages -> the short name its documentation and text logs use."""

_GRPC_OK = "0"
_CLIENT_LEFT = frozenset({"DC", "DR"})
_MODEL_BROKE_OFF = frozenset({"UC", "UR", "UPE"})


def outcome(
    verdict: str, status: int, details: str, flags: Collection[str], *, grpc_status: str = "", has_usage: bool
) -> Outcome:
    """Who ended a request, and how.

    Args:
        status: what the client got; 0 when it left before one.
        details: Envoy's response code details; `via_upstream` for what a model server answered.
        flags: Envoy's short names.
        grpc_status: of a gRPC answer, which has the HTTP status 200 whatever came of it; "" for any other.
        has_usage: the response said how many tokens it has; clients of OpenAI's close right after that.
    """
    if verdict == "REJECT":
        return Outcome.REFUSED
    if status == 0 or (_CLIENT_LEFT.intersection(flags) and status < 400):
        return Outcome.SERVED if has_usage else Outcome.CLIENT_LEFT
    if _MODEL_BROKE_OFF.intersection(flags):
        return Outcome.MODEL_ERROR
    if flags:
        # The status of a stream that Envoy cut had gone out before.
        return Outcome.REFUSED if 400 <= status < 500 else Outcome.GATEWAY_ERROR
    if status < 400:
        return Outcome.SERVED if grpc_status in ("", _GRPC_OK) else Outcome.MODEL_ERROR
    if details == "via_upstream":
        return Outcome.MODEL_ERROR
    return Outcome.REFUSED if status < 500 else Outcome.GATEWAY_ERROR


def estimated_output_tokens(events: int | None, response_bytes: int, most_tokens: int) -> int:
    """What a response without reported usage came to.

    A stream has about one event a token; an answer in one piece is judged by its length.

    Args:
        events: how many a stream had; None for an answer in one piece.
        most_tokens: the cap its request ran under; 0 when there was none.
    """
    tokens = response_bytes // BYTES_PER_TOKEN if events is None else events
    return min(tokens, most_tokens) if most_tokens else tokens
