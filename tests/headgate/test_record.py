"""Everybody who follows hears of every record, whatever another one makes of it."""

from __future__ import annotations

from typing import Any, cast

import pytest

from headgate.record import RecordFeed, RequestRecord


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
