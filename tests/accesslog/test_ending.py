"""How a request ended: who ended it, from what Envoy says of it."""

from __future__ import annotations

import pytest

from accesslog.ending import FLAG_NAMES, estimated_output_tokens, outcome
from headgate.pb import accesslog_pb2 as pb
from headgate.record import Outcome


@pytest.mark.parametrize(
    ("verdict", "status", "details", "flags", "has_usage", "expected"),
    [
        ("ADMIT", 200, "via_upstream", (), True, Outcome.SERVED),
        ("QUEUE", 200, "via_upstream", (), False, Outcome.SERVED),
        ("", 200, "metadata", (), False, Outcome.SERVED),
        # a client of OpenAI's closes at [DONE], right after the usage
        ("ADMIT", 200, "downstream_remote_disconnect", ("DC",), True, Outcome.SERVED),
        ("ADMIT", 200, "downstream_remote_disconnect", ("DC",), False, Outcome.CLIENT_LEFT),
        ("ADMIT", 200, "http2.remote_reset", ("DR",), False, Outcome.CLIENT_LEFT),
        ("", 0, "downstream_remote_disconnect", ("DC",), False, Outcome.CLIENT_LEFT),
        ("REJECT", 429, "headgate_queue_full", (), False, Outcome.REFUSED),
        ("REJECT", 429, "request_rate_limited", ("RL",), False, Outcome.REFUSED),
        ("REJECT", 503, "headgate_shutting_down", (), False, Outcome.REFUSED),
        ("", 404, "cluster_not_found", ("NC",), False, Outcome.REFUSED),
        ("", 413, "request_payload_too_large", (), False, Outcome.REFUSED),
        ("ADMIT", 429, "via_upstream", (), False, Outcome.MODEL_ERROR),
        ("ADMIT", 500, "via_upstream", (), False, Outcome.MODEL_ERROR),
        ("ADMIT", 503, "upstream_reset_before_response_started", ("UC",), False, Outcome.MODEL_ERROR),
        ("ADMIT", 200, "upstream_reset_after_response_started", ("UC",), False, Outcome.MODEL_ERROR),
        ("ADMIT", 200, "stream_idle_timeout", ("SI",), False, Outcome.GATEWAY_ERROR),
        ("ADMIT", 503, "connection_failure", ("UF", "URX"), False, Outcome.GATEWAY_ERROR),
        ("ADMIT", 503, "no_healthy_upstream", ("UH",), False, Outcome.GATEWAY_ERROR),
        ("", 503, "ext_proc_error_gRPC_error_14", (), False, Outcome.GATEWAY_ERROR),
        ("ADMIT", 504, "stream_idle_timeout", ("SI",), False, Outcome.GATEWAY_ERROR),
    ],
)  # fmt: skip
def test_an_outcome_names_who_ended_the_request(
    verdict: str, status: int, details: str, flags: tuple[str, ...], has_usage: bool, expected: Outcome
) -> None:
    assert outcome(verdict, status, details, flags, has_usage=has_usage) is expected


@pytest.mark.parametrize(
    ("events", "response_bytes", "most_tokens", "tokens"),
    [(30, 9000, 0, 30), (30, 9000, 20, 20), (None, 400, 0, 100), (None, 400, 64, 64), (0, 400, 64, 0), (None, 0, 0, 0)],
)
def test_an_estimate_counts_events_or_bytes_up_to_the_requests_own_cap(
    events: int | None, response_bytes: int, most_tokens: int, tokens: int
) -> None:
    assert estimated_output_tokens(events, response_bytes, most_tokens) == tokens


def test_every_flag_envoy_can_set_has_its_short_name() -> None:
    assert set(FLAG_NAMES) == {field.name for field in pb.ResponseFlags.DESCRIPTOR.fields}


@pytest.mark.parametrize(
    ("grpc_status", "expected"), [("", Outcome.SERVED), ("0", Outcome.SERVED), ("8", Outcome.MODEL_ERROR)]
)
def test_a_grpc_answer_is_judged_by_its_own_status(grpc_status: str, expected: Outcome) -> None:
    assert outcome("ADMIT", 200, "via_upstream", (), grpc_status=grpc_status, has_usage=False) is expected
