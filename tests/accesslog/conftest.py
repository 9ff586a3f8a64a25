"""One finished request as Envoy logs it, and ways to revise it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest
from google.protobuf.duration_pb2 import Duration

from headgate.pb import accesslog_pb2 as pb
from headgate.record import RequestRecord
from tests import records

DECISION: Mapping[str, Any] = {
    "request_id": "r-1",
    "tenant": "acme",
    "tier": "premium",
    "model": "assistant",
    "cluster": "best",
    "protocol": "openai",
    "operation": "chat",
    "verdict": "ADMIT",
    "reason": "",
    "decision": "admit",
    "prompt_tokens": 120,
    "max_output_tokens": 512,
    "charged_tokens": 632,
    "queue_wait_seconds": 0.0,
}
USAGE: Mapping[str, Any] = {"prompt_tokens": 131, "completion_tokens": 64, "total_tokens": 195, "cached_tokens": 96}


def entry(
    decision: Mapping[str, Any] | None = DECISION,
    usage: Mapping[str, Any] | None = USAGE,
    rate_limit: Mapping[str, Any] | None = None,
    status: int = 200,
) -> pb.HTTPAccessLogEntry:
    """An entry with every header Envoy could have been told to log."""
    common = pb.AccessLogCommon(
        time_to_first_downstream_tx_byte=Duration(nanos=250_000_000),
        time_to_last_downstream_tx_byte=Duration(seconds=3),
        duration=Duration(seconds=3, nanos=500_000_000),
        upstream_request_attempt_count=1,
        upstream_cluster="best.openai",
        route_name="decided",
        time_to_first_upstream_rx_byte=Duration(nanos=240_000_000),
        time_to_last_upstream_tx_byte=Duration(nanos=125_000_000),
        time_to_last_upstream_rx_byte=Duration(seconds=3, nanos=400_000_000),
        access_log_type=pb.DownstreamEnd,
    )
    namespaces = {"headgate": decision, "headgate.usage": usage, "envoy.filters.http.ratelimit": rate_limit}
    for namespace, fields in namespaces.items():
        if fields is not None:
            common.metadata.filter_metadata[namespace].update(fields)
    request = pb.HTTPRequestProperties(
        request_id="envoys-own",
        path="/v1/chat/completions?key=path-secret",
        user_agent="agent-secret",
        referer="referer-secret",
        forwarded_for="203.0.113.7",
        request_body_bytes=700,
    )
    common.start_time.FromNanoseconds(1_700_000_000_250_000_000)
    request.request_headers.update({"authorization": "Bearer header-secret", "cookie": "cookie-secret"})
    response = pb.HTTPResponseProperties(response_body_bytes=2048, response_code_details="via_upstream")
    response.response_code.value = status
    response.response_headers.update({"set-cookie": "set-cookie-secret"})
    return pb.HTTPAccessLogEntry(common_properties=common, request=request, response=response)


@pytest.fixture(scope="session")
def logged() -> Callable[..., pb.HTTPAccessLogEntry]:
    """Build an entry; `decision`, `usage` and `rate_limit` are its metadata, None leaves one out."""
    return entry


def batch_of(*entries: pb.HTTPAccessLogEntry) -> bytes:
    message = pb.StreamAccessLogsMessage(http_logs=pb.StreamAccessLogsMessage.HTTPAccessLogEntries(log_entry=entries))
    return message.SerializeToString()


@pytest.fixture(scope="session")
def batch() -> Callable[..., bytes]:
    """A message of these entries."""
    return batch_of


@pytest.fixture(scope="session")
def finished() -> Callable[..., RequestRecord]:
    """A record of a stream that went well, but for these fields."""
    return records.finished
