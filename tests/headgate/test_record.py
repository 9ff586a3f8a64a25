"""Everybody who follows hears of every record, whatever another one makes of it."""

from __future__ import annotations

from typing import Any, cast

import pytest

from headgate.record import RecordFeed, RequestRecord, UsageSource


def test_a_listener_that_fails_keeps_the_record_from_nobody_else(caplog: pytest.LogCaptureFixture) -> None:
    heard: list[Any] = []
    feed = RecordFeed()
    record = cast("RequestRecord", object())

    def fail(_: RequestRecord) -> None:
        raise ZeroDivisionError

    feed.follow(fail)
    feed.follow(heard.append)
    feed.publish(record)

    assert heard == [record]
    assert [entry.message for entry in caplog.records] == ["a record could not be counted"]


def finished(**fields: Any) -> RequestRecord:
    texts = dict.fromkeys(
        ("request_id", "tenant", "tier", "model", "cluster", "protocol", "operation", "verdict", "reason", "details"),
        "",
    )
    numbers = dict.fromkeys(
        ("status", "duration_seconds", "queue_wait_seconds", "request_bytes", "response_bytes", "attempts"), 0
    )
    usage = {"prompt_tokens": None, "output_tokens": None, "cached_tokens": None, "charged_tokens": 90}
    known: dict[str, Any] = {"first_byte_seconds": None, "estimated_prompt_tokens": 40}
    return RequestRecord(**texts | numbers | usage | known | fields)


@pytest.mark.parametrize(
    ("fields", "source", "prompt", "output"),
    [
        ({}, UsageSource.NONE, 0, 0),
        ({"prompt_tokens": 7, "output_tokens": 0}, UsageSource.REPORTED, 7, 0),
        ({"prompt_tokens": 7, "estimated_output_tokens": 9}, UsageSource.ESTIMATED, 7, 9),
        ({"output_tokens": 5}, UsageSource.ESTIMATED, 40, 5),
        ({"estimated_output_tokens": 0}, UsageSource.ESTIMATED, 40, 0),
    ],
)
def test_what_was_used_is_what_was_reported_or_else_estimated(
    fields: dict[str, Any], source: UsageSource, prompt: int, output: int
) -> None:
    record = finished(**fields)

    assert (record.usage_source, record.used_prompt_tokens, record.used_output_tokens) == (source, prompt, output)


def test_the_first_byte_is_split_into_headgates_part_and_the_model_servers() -> None:
    assert finished(first_byte_seconds=0.75, upstream_sent_seconds=0.5).upstream_first_byte_seconds == 0.25
    assert finished(first_byte_seconds=0.75).upstream_first_byte_seconds is None
    assert finished(upstream_sent_seconds=0.5).upstream_first_byte_seconds is None


@pytest.mark.parametrize(
    ("fields", "seconds"),
    [
        ({}, 0.1),
        ({"output_tokens": 1}, None),
        ({"output_tokens": None}, None),
        ({"is_stream": False}, None),
        ({"last_byte_seconds": None}, None),
        ({"first_byte_seconds": None}, None),
    ],
)
def test_the_time_of_a_token_is_between_the_first_and_the_last_of_a_stream(
    fields: dict[str, Any], seconds: float | None
) -> None:
    stream = {"is_stream": True, "first_byte_seconds": 1.0, "last_byte_seconds": 2.0, "output_tokens": 11}

    assert finished(**stream | fields).output_token_seconds == seconds


@pytest.mark.parametrize(
    ("now", "age_seconds"),
    [(103.75, 0.25), (103.5, 0.0), (90.0, 0.0), (200.0, 0.0)],
    ids=["a quarter of a second later", "at its end", "a clock that is behind", "a clock that is far ahead"],
)
def test_how_long_ago_it_ended_is_told_by_clocks_that_agree(now: float, age_seconds: float) -> None:
    assert finished(started_at=100.0, duration_seconds=3.5).age_seconds(now) == age_seconds
