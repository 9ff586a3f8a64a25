"""Logs: one JSON object a line, whatever is logged."""

from __future__ import annotations

import io
import json
import logging
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from headgate.logs import FIELDS, JsonFormatter, configure_logs

LOGGER = logging.getLogger("headgate.test")


@pytest.fixture
def written() -> Iterator[io.StringIO]:
    """What the formatter makes of the records of one logger."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonFormatter())
    LOGGER.addHandler(handler)
    LOGGER.setLevel(logging.DEBUG)
    yield stream
    LOGGER.removeHandler(handler)
    LOGGER.setLevel(logging.NOTSET)


def only_line(stream: io.StringIO) -> dict[str, object]:
    [line] = stream.getvalue().removesuffix("\n").split("\n")
    loaded = json.loads(line)
    assert isinstance(loaded, dict)
    return loaded


def test_a_record_is_one_line_with_time_level_logger_and_message_first(written: io.StringIO) -> None:
    record = LOGGER.makeRecord(LOGGER.name, logging.WARNING, "", 0, "%s of %d", ("three", 4), None)
    record.created = 1_700_000_000.25

    LOGGER.handle(record)

    assert written.getvalue() == (
        '{"time":"2023-11-14T22:13:20.250+00:00","level":"warning","logger":"headgate.test","message":"three of 4"}\n'
    )


def test_the_fields_of_a_record_follow_as_they_are(written: io.StringIO) -> None:
    LOGGER.info("request", extra={FIELDS: {"tenant": "acme", "tokens": 12, "seconds": 0.5, "cluster": None}})

    line = only_line(written)
    assert list(line) == ["time", "level", "logger", "message", "tenant", "tokens", "seconds", "cluster"]
    assert [line[name] for name in ("tenant", "tokens", "seconds", "cluster")] == ["acme", 12, 0.5, None]


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("two\nlines", "two\nlines"),
        ('"quotes" \\ and \u2028', '"quotes" \\ and \u2028'),
        ("half a pair: \ud800", "half a pair: \ud800"),
        (Path("policy.yaml"), "policy.yaml"),
        (ValueError("bad"), "bad"),
        (float("nan"), None),
        (["problem one", "problem two"], ["problem one", "problem two"]),
        ({"nested": {"deep": 1}}, {"nested": {"deep": 1}}),
    ],
)
def test_any_value_is_shown_and_none_breaks_the_line(value: object, shown: object, written: io.StringIO) -> None:
    LOGGER.info("m", extra={FIELDS: {"value": value}})

    assert only_line(written)["value"] == shown


def test_a_message_of_many_lines_stays_one_line(written: io.StringIO) -> None:
    LOGGER.info("first\nsecond")

    assert only_line(written)["message"] == "first\nsecond"


def test_an_exception_is_a_field_of_its_line(written: io.StringIO) -> None:
    try:
        raise RuntimeError("boom")
    except RuntimeError:
        LOGGER.exception("it failed")

    line = only_line(written)
    assert line["level"] == "error"
    assert str(line["exception"]).startswith("Traceback")
    assert str(line["exception"]).endswith("RuntimeError: boom")


@pytest.fixture
def root_logger() -> Iterator[logging.Logger]:
    """The root logger, put back as it was."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    root.handlers = []
    yield root
    root.handlers, root.level = handlers, level


def test_every_logger_of_the_process_writes_to_standard_error_from_its_level_on(
    root_logger: logging.Logger, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)

    configure_logs("WARNING")
    configure_logs("WARNING")
    logging.getLogger("anything.else").info("not this")
    logging.getLogger("anything.else").warning("this")

    assert only_line(stream)["message"] == "this"
