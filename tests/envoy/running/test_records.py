"""Records made of what a real Envoy logs: each request once, with its usage, however it ends."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import http.client
import json
import socket
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from accesslog.wire import parse_records
from headgate.pb import accesslog_pb2 as pb
from headgate.pb.ratelimit_pb2 import RateLimitRequest, RateLimitResponse
from headgate.record import Outcome, RequestRecord, UsageSource

Stack = Any
READ = Callable[[], RequestRecord]
SSE = "text/event-stream"
USAGE = {"prompt_tokens": 11, "completion_tokens": 3, "prompt_tokens_details": {"cached_tokens": 4}}
DONE = b"data: [DONE]\n\n"
LOOKS_LIKE_LINES = int.from_bytes(b"\n\n\n\n", "little")
"""As the time in a gzip header."""
TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


def event(**fields: object) -> bytes:
    return b"data: " + json.dumps(fields).encode() + b"\n\n"


def tokens(count: int) -> bytes:
    return b"".join(event(choices=[{"delta": {"content": f"token {number}"}}]) for number in range(count))


def triton_event(**fields: object) -> bytes:
    return event(model_name="best", text_output=' "num_output_tokens":9 ', **fields)


async def let_go(release: asyncio.Event) -> None:
    release.set()


@pytest.fixture
def admitted_to(stack: Stack, say: SimpleNamespace) -> Callable[[str], None]:
    """Lets requests run on a cluster from now on."""

    def admit(cluster: str) -> None:
        admitted = {
            "tenant": "acme", "tier": "premium", "model": "assistant", "cluster": cluster, "protocol": "openai",
            "operation": "chat", "verdict": "ADMIT", "prompt_tokens": 9, "charged_tokens": 73,
        }  # fmt: skip

        def on_body(_: bytes) -> Any:
            answer = say.routed(cluster)
            answer.dynamic_metadata.update({"headgate": admitted})
            return answer

        stack.extproc.on_body = on_body

    return admit


@pytest.fixture
def record(stack: Stack, admitted_to: Callable[[str], None]) -> READ:
    """The record of the last request, the only one there is of it; requests run on `standard`."""
    admitted_to("standard")

    def read() -> RequestRecord:
        entry = stack.record()
        message = pb.StreamAccessLogsMessage(
            http_logs=pb.StreamAccessLogsMessage.HTTPAccessLogEntries(log_entry=[entry])
        )
        [found] = parse_records(message.SerializeToString())
        assert [one.request.request_id for one in stack.accesslog.entries].count(entry.request.request_id) == 1
        return found

    return read


def used(record: RequestRecord) -> tuple[UsageSource, int, int, int | None]:
    return record.usage_source, record.used_prompt_tokens, record.used_output_tokens, record.cached_tokens


def test_usage_split_over_chunks_is_read_whole(stack: Stack, record: READ) -> None:
    body = tokens(3) + event(choices=[], usage=USAGE) + DONE
    stack.models["standard"].content_type = SSE
    stack.models["standard"].chunks = tuple(bytes([byte]) for byte in body)

    assert stack.post().body == body

    assert used(record()) == (UsageSource.REPORTED, 11, 3, 4)
    assert (record().outcome, record().is_stream) == (Outcome.SERVED, True)


def test_a_client_that_closes_at_done_has_been_served(stack: Stack, record: READ) -> None:
    model = stack.models["standard"]
    model.content_type, model.release = SSE, asyncio.Event()
    model.chunks = (tokens(3) + event(choices=[], usage=USAGE) + DONE, b"\n")

    with stack.open("POST", "/v1/x", b"{}") as response:
        while b"[DONE]" not in response.read1():
            pass
    stack.loop.run(let_go(model.release))

    assert used(record()) == (UsageSource.REPORTED, 11, 3, 4)
    assert (record().outcome, record().flags) == (Outcome.SERVED, ("DC",))


def test_a_client_that_leaves_in_the_midst_is_charged_for_what_came(stack: Stack, record: READ) -> None:
    model = stack.models["standard"]
    model.content_type, model.release, model.chunks = SSE, asyncio.Event(), (tokens(5), tokens(50))

    with stack.open("POST", "/v1/x", b"{}") as response:
        response.read1()
    stack.loop.run(let_go(model.release))

    assert used(record()) == (UsageSource.ESTIMATED, 9, 5, None)
    assert record().outcome is Outcome.CLIENT_LEFT
    assert record().first_byte_seconds is not None


def test_a_client_that_leaves_before_the_answer_is_charged_for_its_prompt(stack: Stack, record: READ) -> None:
    stack.models["standard"].is_silent = True
    request = b"POST /v1/x HTTP/1.1\r\nhost: a\r\nx-request-id: left-early\r\ncontent-length: 2\r\n\r\n{}"
    with contextlib.closing(socket.create_connection(("127.0.0.1", stack.port))) as connection:
        connection.sendall(request)
        stack.wait_until(lambda: stack.models["standard"].requests, "request at the model")
    stack.wait_until(lambda: stack.extproc.open_streams == 0, "end of the lease")
    stack.request_id = stack.models["standard"].requests[0].headers["x-request-id"]

    assert used(record()) == (UsageSource.ESTIMATED, 9, 0, None)
    assert (record().outcome, record().status, record().first_byte_seconds) == (Outcome.CLIENT_LEFT, 0, None)


def test_a_client_that_leaves_before_the_decision_is_nobodys_and_used_nothing(stack: Stack, record: READ) -> None:
    stack.extproc.delay_seconds = 0.5
    request = b"POST /v1/x HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\n\r\n{}"
    with contextlib.closing(socket.create_connection(("127.0.0.1", stack.port))) as connection:
        connection.sendall(request)
        stack.wait_until(lambda: stack.extproc.bodies, "body at ext_proc")
    stack.request_id = stack.extproc.headers[0]["x-request-id"]

    assert (record().outcome, record().status, record().verdict) == (Outcome.CLIENT_LEFT, 0, "")
    assert (record().tenant, record().cluster, record().attempts) == ("", "", 0)
    assert used(record()) == (UsageSource.NONE, 0, 0, None)
    assert not stack.models["standard"].requests
    stack.wait_until(lambda: stack.extproc.open_streams == 0, "end of the lease")


def test_a_model_that_breaks_off_is_to_blame_and_what_it_sent_counts(stack: Stack, record: READ) -> None:
    model = stack.models["standard"]
    model.content_type, model.chunks, model.breaks_off = SSE, (tokens(4),), True

    with stack.open("POST", "/v1/x", b"{}") as response, contextlib.suppress(http.client.IncompleteRead):
        response.read()

    assert used(record()) == (UsageSource.ESTIMATED, 9, 4, None)
    assert (record().outcome, record().status) == (Outcome.MODEL_ERROR, 200)


def test_a_model_that_breaks_off_before_any_answer_used_nothing_that_counts(stack: Stack, record: READ) -> None:
    model = stack.models["standard"]
    model.chunks, model.breaks_off = (), True

    assert stack.post().status == 503

    assert used(record()) == (UsageSource.NONE, 0, 0, None)
    assert record().outcome is Outcome.MODEL_ERROR


@pytest.mark.parametrize("status", [400, 429, 500, 503])
def test_an_error_of_the_model_is_its_own_and_used_nothing(stack: Stack, record: READ, status: int) -> None:
    model = stack.models["standard"]
    model.status, model.chunks = status, (b'{"error": {"message": "a long story of what went wrong"}}',)

    assert stack.post().status == status

    assert used(record()) == (UsageSource.NONE, 0, 0, None)
    assert (record().outcome, record().status, record().details) == (Outcome.MODEL_ERROR, status, "via_upstream")


def test_retries_are_one_record_and_nothing_was_used(
    stack: Stack, record: READ, admitted_to: Callable[[str], None]
) -> None:
    admitted_to("absent")

    assert stack.post().status == 503

    assert (record().attempts, record().outcome) == (3, Outcome.GATEWAY_ERROR)
    assert used(record()) == (UsageSource.NONE, 0, 0, None)


def test_a_retry_that_succeeds_counts_its_tokens_once(
    stack: Stack, record: READ, admitted_to: Callable[[str], None]
) -> None:
    stack.models["standard"].chunks = (json.dumps({"usage": USAGE}).encode(),)
    admitted_to("half")
    attempts = []

    for _ in range(40):
        assert stack.post().status == 200
        attempts.append(record().attempts)
        assert used(record()) == (UsageSource.REPORTED, 11, 3, 4)
        if attempts[-1] > 1:
            break

    assert attempts[-1] > 1
    assert record().outcome is Outcome.SERVED
    assert len(stack.models["standard"].requests) == len(attempts)
    # However often it was tried: decided on once, and charged once.
    assert len(stack.extproc.bodies) == len(stack.ratelimit.requests) == len(attempts)


def test_our_refusal_is_one_record_and_no_error_of_a_model(stack: Stack, record: READ, say: SimpleNamespace) -> None:
    stack.extproc.on_body = lambda _: say.refused(
        429, b'{"usage": {"completion_tokens": 9}}', content_type="application/json"
    )

    assert stack.post().status == 429

    assert used(record()) == (UsageSource.NONE, 0, 0, None)
    assert (record().outcome, record().verdict) == (Outcome.REFUSED, "REJECT")


def test_a_refusal_of_the_rate_limit_is_one_record_too(stack: Stack, record: READ) -> None:
    def over_limit(request: RateLimitRequest) -> RateLimitResponse:
        status = RateLimitResponse.DescriptorStatus(code=RateLimitResponse.OVER_LIMIT)
        answer = RateLimitResponse(overall_code=RateLimitResponse.OVER_LIMIT)
        answer.statuses.extend([status] * len(request.descriptors))
        answer.dynamic_metadata.update({"verdict": "REJECT", "reason": "tokens_per_minute"})
        return answer

    stack.ratelimit.answer = over_limit

    assert stack.post().status == 429

    assert (record().outcome, record().reason, record().flags) == (Outcome.REFUSED, "tokens_per_minute", ("RL",))
    assert used(record()) == (UsageSource.NONE, 0, 0, None)


def test_an_answer_in_one_piece_reports_its_usage_or_is_estimated_by_its_length(stack: Stack, record: READ) -> None:
    stack.models["standard"].chunks = (json.dumps({"usage": USAGE}).encode(),)
    stack.post()
    assert used(record()) == (UsageSource.REPORTED, 11, 3, 4)

    stack.models["standard"].chunks = (b'{"text": "' + b"word " * 20 + b'"}',)
    stack.post()
    assert used(record()) == (UsageSource.ESTIMATED, 9, 28, None)
    assert record().is_stream is False


def test_what_tritons_events_say_of_themselves_is_added_up(stack: Stack, record: READ) -> None:
    model = stack.models["standard"]
    body = b"".join(triton_event(num_input_tokens=11, num_output_tokens=count) for count in (1, 1, 2))
    # Events do not end where chunks do.
    model.content_type, model.chunks = SSE, (body[:150], body[150:260], body[260:])

    assert stack.post().body == body

    assert used(record()) == (UsageSource.REPORTED, 11, 4, None)


def test_tritons_events_are_counted_where_they_say_nothing(stack: Stack, record: READ) -> None:
    stack.models["standard"].content_type = SSE
    stack.models["standard"].chunks = (triton_event() * 7,)

    stack.post()

    assert used(record()) == (UsageSource.ESTIMATED, 9, 7, None)


def test_a_compressed_stream_is_estimated_by_its_length(stack: Stack, record: READ) -> None:
    model = stack.models["standard"]
    body = gzip.compress(tokens(200) + event(choices=[], usage=USAGE) + DONE, mtime=LOOKS_LIKE_LINES)
    model.content_type, model.headers, model.chunks = SSE, ("content-encoding: gzip",), (body,)

    stack.post()

    assert used(record()) == (UsageSource.ESTIMATED, 9, min(64, len(body) // 4), None)
    assert record().is_stream


def test_a_line_without_end_costs_no_memory_and_no_stream(stack: Stack, record: READ) -> None:
    body = b"data: " + b"x" * 1_000_000 + b"\n\n" + tokens(2)
    stack.models["standard"].content_type, stack.models["standard"].chunks = SSE, (body,)

    assert stack.post().body == body

    assert record().used_output_tokens == 2


def test_the_first_byte_that_counts_is_the_bodys_and_not_the_headers(stack: Stack, record: READ) -> None:
    model = stack.models["standard"]
    model.content_type, model.chunks, model.pause_seconds = SSE, (tokens(2),), 0.3

    stack.post()

    entry, found = stack.record().common_properties, record()
    headers_seconds = entry.time_to_first_downstream_tx_byte.nanos / 1e9
    assert found.first_byte_seconds > headers_seconds + 0.2
    assert found.upstream_first_byte_seconds > 0.25
    assert found.duration_seconds >= found.last_byte_seconds >= found.first_byte_seconds


def test_a_queue_wait_is_not_the_models_time(stack: Stack, record: READ) -> None:
    stack.extproc.delay_seconds = 0.3
    stack.models["standard"].content_type, stack.models["standard"].chunks = SSE, (tokens(2),)

    stack.post()

    assert record().first_byte_seconds > 0.5
    assert record().upstream_first_byte_seconds < 0.3


def test_the_trace_a_request_came_with_is_in_its_record(stack: Stack, record: READ) -> None:
    stack.post(traceparent=TRACE)

    assert record().traceparent == TRACE
    assert (record().route, record().upstream_cluster) == ("decided", "standard")
    assert record().started_at > 1_600_000_000


def test_a_response_costs_two_messages_and_a_record_however_many_chunks_it_has(stack: Stack, record: READ) -> None:
    sent = "http.headgate.ext_proc.stream_msgs_sent"
    before = stack.statistic(sent)
    model = stack.models["standard"]
    model.content_type, model.chunks = SSE, (tokens(1),) * 300

    stack.post()

    assert record().estimated_output_tokens == 64
    assert stack.statistic(sent) - before == 2
