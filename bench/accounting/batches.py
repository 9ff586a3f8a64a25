"""Batches of finished requests as Envoy logs them on the rendered configuration: a stream each, all of it reported."""

from __future__ import annotations

import random
import uuid
from collections.abc import Iterator

from google.protobuf.duration_pb2 import Duration

from headgate.pb import accesslog_pb2 as pb

ENTRIES_A_BATCH = 12
"""About the 16 KiB after which Envoy sends a batch; at a low rate it sends what a quarter of a second has brought."""
_TIERS = ("premium", "interactive", "async", "batch", "best_effort")


def batches(tenants: int, count: int, seed: int = 0) -> Iterator[bytes]:
    """That many batches, of requests that go round all tenants."""
    draw = random.Random(seed)
    for number in range(count):
        first = number * ENTRIES_A_BATCH
        entries = [_entry(draw, f"tenant-{index % tenants}") for index in range(first, first + ENTRIES_A_BATCH)]
        logs = pb.StreamAccessLogsMessage.HTTPAccessLogEntries(log_entry=entries)
        yield pb.StreamAccessLogsMessage(http_logs=logs).SerializeToString()


def _entry(draw: random.Random, tenant: str) -> pb.HTTPAccessLogEntry:
    first_byte, output = draw.uniform(0.05, 0.4), draw.randint(20, 400)
    last_byte = first_byte + output * 0.02
    common = pb.AccessLogCommon(
        downstream_remote_address=_address("10.1.2.3", 40_000),
        downstream_local_address=_address("10.0.0.1", 10_000),
        downstream_direct_remote_address=_address("10.1.2.3", 40_000),
        upstream_remote_address=_address("10.0.0.2", 8010),
        upstream_local_address=_address("10.0.0.1", 50_000),
        time_to_last_rx_byte=_duration(0.0002),
        time_to_first_upstream_tx_byte=_duration(0.0012),
        time_to_last_upstream_tx_byte=_duration(0.0013),
        time_to_first_upstream_rx_byte=_duration(first_byte - 0.001),
        time_to_last_upstream_rx_byte=_duration(last_byte),
        time_to_first_downstream_tx_byte=_duration(first_byte),
        time_to_last_downstream_tx_byte=_duration(last_byte),
        duration=_duration(last_byte),
        upstream_cluster="standard",
        route_name="decided",
        upstream_request_attempt_count=1,
        stream_id=str(uuid.UUID(int=draw.getrandbits(128))),
        downstream_wire_bytes_sent=output * 220,
        downstream_wire_bytes_received=1200,
        upstream_wire_bytes_sent=1300,
        upstream_wire_bytes_received=output * 220,
        access_log_type=pb.DownstreamEnd,
    )
    common.start_time.FromSeconds(1_700_000_000)
    common.custom_tags["first_body_byte_us"] = str(int(first_byte * 1e6))
    prompt = draw.randint(100, 2000)
    common.metadata.filter_metadata["headgate"].update(_decision(draw, tenant, prompt))
    usage = {"prompt_tokens": prompt, "completion_tokens": output, "total_tokens": prompt + output}
    common.metadata.filter_metadata["headgate.usage"].update(usage | {"stream_events": output + 2})
    request = pb.HTTPRequestProperties(
        request_method=pb.POST,
        scheme="http",
        authority="models.example",
        path="/v1/chat/completions",
        user_agent="OpenAI/Python 2.8.1",
        request_id=common.stream_id,
        request_headers_bytes=600,
        request_body_bytes=prompt * 4,
    )
    response = pb.HTTPResponseProperties(
        response_headers_bytes=300, response_body_bytes=output * 220, response_code_details="via_upstream"
    )
    response.response_code.value = 200
    response.response_headers["content-type"] = "text/event-stream; charset=utf-8"
    return pb.HTTPAccessLogEntry(
        common_properties=common, protocol_version=pb.HTTPAccessLogEntry.HTTP11, request=request, response=response
    )


def _decision(draw: random.Random, tenant: str, prompt_tokens: int) -> dict[str, str | float]:
    return {
        "request_id": str(uuid.UUID(int=draw.getrandbits(128))),
        "tenant": tenant,
        "tier": draw.choice(_TIERS),
        "model": "assistant",
        "cluster": draw.choice(("standard", "fast")),
        "protocol": "openai",
        "operation": "chat",
        "verdict": "ADMIT",
        "reason": "",
        "decision": "admit",
        "server_timing": "hg-queue;dur=0.0, hg-decide;dur=0.21",
        "prompt_tokens": prompt_tokens * 1.1 // 1,
        "max_output_tokens": 400,
        "charged_tokens": prompt_tokens + 400,
        "queue_wait_seconds": 0.0,
    }


def _address(host: str, port: int) -> pb.Address:
    return pb.Address(socket_address=pb.SocketAddress(address=host, port_value=port))


def _duration(seconds: float) -> Duration:
    return Duration(seconds=int(seconds), nanos=int(seconds % 1 * 1e9))
