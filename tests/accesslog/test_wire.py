"""Envoy's access log entries read into records: what is there counts, what is not is no error."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import pytest
from google.protobuf.duration_pb2 import Duration
from hypothesis import given, settings
from hypothesis import strategies as st

from accesslog.wire import parse_records
from headgate.pb import accesslog_pb2 as pb
from headgate.record import Outcome, RequestRecord, UsageSource
from headgate.transport import RpcError, StatusCode

DECISION_WITHOUT_CLUSTER = {"tenant": "acme", "tier": "premium", "verdict": "ADMIT", "prompt_tokens": 120}
LOGGED = Callable[..., pb.HTTPAccessLogEntry]
BATCH = Callable[..., bytes]


@pytest.fixture(scope="session")
def read(logged: LOGGED, batch: BATCH) -> Callable[..., RequestRecord]:
    """The record of an entry built like this."""

    def one(**fields: Any) -> RequestRecord:
        [record] = parse_records(batch(logged(**fields)))
        return record

    return one


def test_an_entry_is_read_whole(read: Callable[..., RequestRecord]) -> None:
    assert read() == RequestRecord(
        request_id="r-1",
        tenant="acme",
        tier="premium",
        model="assistant",
        cluster="best",
        protocol="openai",
        operation="chat",
        verdict="ADMIT",
        reason="",
        status=200,
        details="via_upstream",
        duration_seconds=3.5,
        first_byte_seconds=0.25,
        queue_wait_seconds=0.0,
        request_bytes=700,
        response_bytes=2048,
        attempts=1,
        prompt_tokens=131,
        output_tokens=64,
        cached_tokens=96,
        estimated_prompt_tokens=120,
        charged_tokens=632,
        started_at=1_700_000_000.25,
        upstream_sent_seconds=0.125,
        last_byte_seconds=3.4,
        upstream_cluster="best.openai",
        route="decided",
    )


def test_an_entry_without_any_metadata_is_a_request_that_never_reached_a_decision(
    read: Callable[..., RequestRecord],
) -> None:
    record = read(decision=None, usage=None, status=404)

    assert (record.request_id, record.status) == ("envoys-own", 404)
    assert (record.tenant, record.tier, record.model, record.cluster, record.verdict) == ("", "", "", "", "")
    assert (record.prompt_tokens, record.output_tokens, record.cached_tokens) == (None, None, None)
    assert (record.estimated_prompt_tokens, record.queue_wait_seconds) == (0, 0.0)


def test_an_empty_entry_is_a_record_too(batch: BATCH) -> None:
    [record] = parse_records(batch(pb.HTTPAccessLogEntry()))

    assert (record.status, record.duration_seconds, record.first_byte_seconds) == (0, 0.0, None)


# usage


@pytest.mark.parametrize(
    ("value", "tokens"),
    [
        (7, 7),
        (0, 0),
        (7.0, 7),
        (7.9, 7),
        (1e15, 10**15),
        (2.0**53, None),
        (1e300, None),
        (math.inf, None),
        (math.nan, None),
        (-1, None),
        ("7", None),
        (None, None),
        (True, None),
        ([7], None),
        ({"n": 7}, None),
    ],
)
def test_usage_is_a_number_or_not_known(read: Callable[..., RequestRecord], value: object, tokens: int | None) -> None:
    usage = {"prompt_tokens": value, "completion_tokens": value, "cached_tokens": value}

    record = read(usage=usage)

    assert (record.prompt_tokens, record.output_tokens, record.cached_tokens) == (tokens, tokens, tokens)


def test_usage_may_be_there_in_part(read: Callable[..., RequestRecord]) -> None:
    record = read(usage={"completion_tokens": 5})

    assert (record.prompt_tokens, record.output_tokens, record.cached_tokens) == (None, 5, None)


@pytest.mark.parametrize("value", [7, None, True, [], {"a": 1}])
def test_a_text_that_is_none_reads_as_empty(read: Callable[..., RequestRecord], value: object) -> None:
    record = read(decision={"tenant": value, "verdict": value, "queue_wait_seconds": "long", "prompt_tokens": "many"})

    assert (record.tenant, record.verdict) == ("", "")
    assert (record.queue_wait_seconds, record.estimated_prompt_tokens) == (0.0, 0)


def test_a_total_without_output_is_all_prompt_as_embeddings_report_it(read: Callable[..., RequestRecord]) -> None:
    record = read(usage={"prompt_tokens": 9, "total_tokens": 9})

    assert (record.prompt_tokens, record.output_tokens, record.usage_source) == (9, 0, UsageSource.REPORTED)


@pytest.mark.parametrize(
    ("usage", "estimate"),
    [
        ({"stream_events": 30}, 30),
        ({"stream_events": 1000}, 512),
        ({"prompt_tokens": 7}, 512),
        ({"stream_events": 30, "completion_tokens": 28}, None),
    ],
)
def test_output_nobody_reported_is_estimated_up_to_its_cap(
    read: Callable[..., RequestRecord], usage: Mapping[str, object], estimate: int | None
) -> None:
    assert read(usage=usage).estimated_output_tokens == estimate


def test_what_no_model_answered_has_no_estimate(
    read: Callable[..., RequestRecord], logged: LOGGED, batch: BATCH
) -> None:
    unsent = logged(usage=None)
    unsent.common_properties.ClearField("time_to_last_upstream_tx_byte")

    [never_sent] = parse_records(batch(unsent))

    for record in (never_sent, read(usage=None, status=500), read(usage=None, decision=DECISION_WITHOUT_CLUSTER)):
        assert (record.estimated_output_tokens, record.usage_source) == (None, UsageSource.NONE)


# the last word


def test_a_rate_limited_request_is_rejected_for_the_limits_reason(read: Callable[..., RequestRecord]) -> None:
    refused = {
        "verdict": "REJECT",
        "reason": "tokens_per_minute",
        "limit": 2_000_000,
        "decision": "reject; reason=tokens_per_minute",
    }

    record = read(rate_limit=refused, status=429)

    assert (record.verdict, record.reason, record.status) == ("REJECT", "tokens_per_minute", 429)
    assert (record.tenant, record.cluster, record.estimated_prompt_tokens) == ("acme", "best", 120)


@pytest.mark.parametrize("said", [{}, {"reason": "tokens_per_minute"}, {"verdict": ""}, {"verdict": 7}])
def test_a_rate_limit_filter_that_refused_nothing_changes_nothing(
    read: Callable[..., RequestRecord], said: Mapping[str, object]
) -> None:
    record = read(rate_limit=said)

    assert (record.verdict, record.reason) == ("ADMIT", "")


def test_a_rate_limits_reason_does_not_mix_with_the_decisions(read: Callable[..., RequestRecord]) -> None:
    degraded = {"verdict": "DEGRADE", "reason": "queue_timeout"}

    assert read(decision=degraded, rate_limit={"verdict": "REJECT"}).reason == ""
    assert read(decision=degraded).reason == "queue_timeout"


# times


def test_without_a_duration_the_last_byte_tells_it(logged: LOGGED, batch: BATCH) -> None:
    entry = logged()
    entry.common_properties.ClearField("duration")

    [record] = parse_records(batch(entry))

    assert record.duration_seconds == 3.0


def test_a_response_that_never_began_has_no_first_byte(logged: LOGGED, batch: BATCH) -> None:
    entry = logged(status=0)
    entry.common_properties.ClearField("time_to_first_downstream_tx_byte")

    [record] = parse_records(batch(entry))

    assert (record.first_byte_seconds, record.status) == (None, 0)


def test_a_first_byte_at_once_is_zero_and_not_unknown(logged: LOGGED, batch: BATCH) -> None:
    entry = logged()
    entry.common_properties.time_to_first_downstream_tx_byte.CopyFrom(Duration())

    [record] = parse_records(batch(entry))

    assert record.first_byte_seconds == 0.0


@pytest.mark.parametrize(("tag", "seconds"), [("180000", 0.18), ("0", 0.0), ("-", None), ("", None), ("-1", None)])
def test_the_first_byte_of_the_body_is_the_one_that_counts(
    logged: LOGGED, batch: BATCH, tag: str, seconds: float | None
) -> None:
    entry = logged()
    entry.common_properties.custom_tags["first_body_byte_us"] = tag

    [record] = parse_records(batch(entry))

    assert record.first_byte_seconds == seconds


# what kind of answer, and how it ended


@pytest.mark.parametrize(
    ("content_type", "usage", "is_stream"),
    [
        ("text/event-stream; charset=utf-8", {}, True),
        ("application/json", {}, False),
        ("", {}, False),
        ("", {"stream_events": 1}, True),
    ],
)
def test_a_stream_is_known_by_its_type_or_its_events(
    logged: LOGGED, batch: BATCH, content_type: str, usage: Mapping[str, object], is_stream: bool
) -> None:
    entry = logged(usage=usage)
    entry.response.response_headers["content-type"] = content_type

    [record] = parse_records(batch(entry))

    assert record.is_stream is is_stream


def test_flags_have_the_names_of_envoys_documentation(logged: LOGGED, batch: BATCH) -> None:
    entry = logged(usage=None)
    entry.common_properties.response_flags.downstream_connection_termination = True
    entry.common_properties.response_flags.upstream_retry_limit_exceeded = True

    [record] = parse_records(batch(entry))

    assert set(record.flags) == {"DC", "URX"}
    assert record.outcome is Outcome.CLIENT_LEFT


VALID_TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


@pytest.mark.parametrize(
    ("said", "kept"),
    [
        (VALID_TRACE, VALID_TRACE),
        (VALID_TRACE.upper(), ""),
        (f"00-{'0' * 32}-00f067aa0ba902b7-01", ""),
        (f"00-{'a' * 32}-{'0' * 16}-01", ""),
        (f"{VALID_TRACE} and my prompt", ""),
        ("", ""),
    ],
)
def test_only_a_trace_context_is_carried_on_as_one(logged: LOGGED, batch: BATCH, said: str, kept: str) -> None:
    entry = logged()
    entry.request.request_headers["traceparent"] = said

    [record] = parse_records(batch(entry))

    assert record.traceparent == kept


# batches


def test_a_batch_is_read_in_its_order(logged: LOGGED, batch: BATCH) -> None:
    message = batch(*(logged(decision={"request_id": f"r-{number}"}) for number in range(3)))

    assert [record.request_id for record in parse_records(message)] == ["r-0", "r-1", "r-2"]


@pytest.mark.parametrize(
    ("kind", "is_counted"),
    [
        (pb.NotSet, True),
        (pb.DownstreamEnd, True),
        (pb.DownstreamStart, False),
        (pb.DownstreamPeriodic, False),
        (pb.UpstreamPoolReady, False),
        (pb.UpstreamPeriodic, False),
        (pb.UpstreamEnd, False),
    ],
)
def test_a_request_counts_once_however_often_envoy_logs_it(
    logged: LOGGED, batch: BATCH, kind: Any, is_counted: bool
) -> None:
    entry = logged()
    entry.common_properties.access_log_type = kind

    assert len(list(parse_records(batch(entry, logged())))) == 1 + is_counted


def test_an_intermediate_entry_of_an_older_envoy_does_not_count(logged: LOGGED, batch: BATCH) -> None:
    entry = logged()
    entry.common_properties.ClearField("access_log_type")
    entry.common_properties.intermediate_log_entry = True

    assert list(parse_records(batch(entry))) == []


@pytest.mark.parametrize(
    "message",
    [
        pb.StreamAccessLogsMessage(),
        pb.StreamAccessLogsMessage(identifier=pb.StreamAccessLogsMessage.Identifier(log_name="headgate")),
        pb.StreamAccessLogsMessage(
            tcp_logs=pb.StreamAccessLogsMessage.TCPAccessLogEntries(log_entry=[pb.TCPAccessLogEntry()])
        ),
    ],
    ids=["empty", "identifier only", "tcp"],
)
def test_a_message_without_http_entries_has_no_records(message: pb.StreamAccessLogsMessage) -> None:
    assert list(parse_records(message.SerializeToString())) == []


@pytest.mark.parametrize("message", [b"\xff\xff\xff", b"\x12\x7f", b"GET / HTTP/1.1\r\n"])
def test_what_is_no_message_is_an_invalid_argument(message: bytes) -> None:
    with pytest.raises(RpcError) as raised:
        parse_records(message)

    assert (raised.value.code, raised.value.message) == (
        StatusCode.INVALID_ARGUMENT,
        "not a StreamAccessLogsMessage",
    )


@settings(deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_are_records_or_an_invalid_argument(message: bytes) -> None:
    try:
        records = list(parse_records(message))
    except RpcError as error:
        code = error.code
    else:
        code = StatusCode.OK if all(isinstance(record, RequestRecord) for record in records) else StatusCode.UNKNOWN
    assert code in (StatusCode.OK, StatusCode.INVALID_ARGUMENT)


ANY_VALUE = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=4), inner, max_size=2),
    max_leaves=3,
)
ANY_METADATA = st.dictionaries(
    st.sampled_from(
        ["tenant", "verdict", "reason", "prompt_tokens", "completion_tokens", "cached_tokens", "queue_wait_seconds"]
    ),
    ANY_VALUE,
)


@settings(deadline=None)
@given(decision=ANY_METADATA, usage=ANY_METADATA, rate_limit=ANY_METADATA)
def test_any_metadata_is_a_record_with_whole_numbers_or_none(
    read: Callable[..., RequestRecord],
    decision: Mapping[str, object],
    usage: Mapping[str, object],
    rate_limit: Mapping[str, object],
) -> None:
    record = read(decision=decision, usage=usage, rate_limit=rate_limit)

    for count in (record.prompt_tokens, record.output_tokens, record.cached_tokens, record.estimated_prompt_tokens):
        assert count is None or 0 <= count < 2**53


@pytest.mark.parametrize("place", ["response_trailers", "response_headers"])
def test_a_grpc_error_of_the_model_is_one_wherever_its_status_stands(logged: LOGGED, batch: BATCH, place: str) -> None:
    entry = logged()
    getattr(entry.response, place)["grpc-status"] = "13"

    [record] = parse_records(batch(entry))

    assert record.outcome is Outcome.MODEL_ERROR
